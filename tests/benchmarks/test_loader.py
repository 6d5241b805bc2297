"""The benchmark of the loader: made-up and given images fill its table; what it measures is no
test's business.
"""

import sys

import pytest
from PIL import Image

from dmd2.benchmarks.loader import loader
from dmd2.cli.main import main
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.layout import lay_out
from dmd2.data.preparation.prepare import prepare

SMALL = {"batch_size": 4, "num_batches": 2, "num_repeats": 1}


def test_every_number_of_workers_has_a_row_and_the_target_a_verdict(tmp_path):
    (tmp_path / "source").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "source" / "a.png")
    prepare(tmp_path / "source", lay_out(tmp_path / "source", 0.0), Decoder(4), tmp_path / "out")
    *head, zero, one, verdict = loader(tmp_path / "out", **SMALL, num_workers=[0, 1], target=1)
    assert head[0] == "| workers | images/s | ratio |"
    assert zero.startswith("| 0 |") and zero.endswith("| 1.00 |") and one.startswith("| 1 |")
    assert "feeds 1 images/s" in verdict


def test_the_verb_makes_images_up(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = [f"part.{key}={value}" for key, value in SMALL.items()]
    monkeypatch.setattr(
        sys,
        "argv",
        ["dmd2", "benchmark", *short, "part.num_workers=[0]", "part.target=1000000000000"],
    )
    main()
    assert "does not feed 1,000,000,000,000 images/s" in capsys.readouterr().out


def test_a_source_that_is_not_prepared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no resolution"):
        loader(tmp_path, **SMALL, num_workers=[0], target=1)
