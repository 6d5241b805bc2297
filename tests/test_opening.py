"""What a run says before it begins."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.runs.assemble import assemble
from dmd2.runs.build import build
from dmd2.runs.cached import data_references_path
from dmd2.runs.opening import opening


def test_a_run_opens_with_what_it_is_and_what_is_made_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        given = ["max_iterations=1500", f"paths.cache={tmp_path}"]
        config = resolved(compose("train", overrides=given))
    parts = assemble(config, build(config["metric"]))
    path = data_references_path(config, parts.evaluator)
    path.parent.mkdir(parents=True)
    path.touch()
    said = opening(config, parts, 500, is_scored=True)
    assert len(said) <= 8 and all("\n" not in line for line in said)
    text = "\n".join(said)
    for words in (
        "digits_dmd2 in runs/digits_dmd2/now, seed 0",
        "device: 1 x cpu, 32-true, threads: 1; ",
        "parameters: teacher 196,145, generator 196,145, critic 212,658",
        "iterations: 500 to 1,500, 5 to a generator's update",
        f"in {tmp_path}: scores of data; made first: teacher (trained for 1,300 iterations), "
        "scores of the teacher",
    ):
        assert words in text
    assert "scores" not in opening(config, parts, 0, is_scored=False)[-1]
