"""A run's plan, made before it begins, and its measured peak beside it at its end."""

import json
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir

from dmd2.cli.plan import composed
from dmd2.config.folder import config_folder
from dmd2.planning.run_plan import planned_peaks
from dmd2.planning.simulation import simulate
from dmd2.runs.memory import measured_words, planned_words
from dmd2.runs.run import Run
from dmd2.runs.summary import read_summary

SMALL = ["experiment=toy2d_dmd2", "data.batch_size=16", "max_iterations=2", "metric=none"]


@pytest.fixture(autouse=True)
def _hydra(monkeypatch):
    monkeypatch.setenv("DMD2_RUN_ID", "test")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def test_a_run_on_a_gpu_has_a_plan_and_draws_the_same_numbers_after_it():
    config, before = composed(1, [*SMALL, "trainer=gpu"]), torch.get_rng_state()
    planned = planned_peaks(config)
    assert torch.equal(before, torch.get_rng_state())
    found = simulate(config)
    assert planned == {name: peak.total() for name, peak in found.peaks.items()}
    assert planned["training"] > 0


@pytest.mark.parametrize("trainer", ["cpu", "fsdp"])
def test_what_cannot_be_compared_with_a_measurement_has_none(trainer):
    assert planned_peaks(composed(1, [*SMALL, f"trainer={trainer}"])) is None


def test_a_run_that_has_no_plan_says_so_and_goes_on(capsys):
    words = ["experiment=distil", "teacher.source=none", "data.captions.source=none"]
    assert planned_peaks(composed(1, [*words, "trainer=gpu"])) is None
    assert "this run's memory is not planned: " in capsys.readouterr().err


def test_a_run_says_its_plan_at_its_start_and_its_peak_beside_it_at_its_end(tmp_path, capsys):
    places = [f"paths.run={tmp_path}/run", f"paths.cache={tmp_path}/cache"]
    config = composed(1, [*SMALL, *places, "teacher.pretrain.max_iterations=2"])
    planned = {"training": 2**30, "sample grid": 3 * 2**29}
    Run(config, planned).start()
    said = capsys.readouterr().out
    summary = read_summary(tmp_path / "run" / "summary.json")
    measured = measured_words(summary["peak_memory_bytes"], planned)
    assert f"memory by plan: {planned_words(planned)}\n" in said
    assert f"memory: {measured}\n" in said and "1.5 planned" in measured
    assert measured in Path(tmp_path / "run" / "report.html").read_text()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["devices"] == 1
    assert summary["planned_memory_bytes"] == planned
