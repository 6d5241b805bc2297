"""`dmd2 pretrain` and `dmd2 pairs` leave a trained teacher, and what it makes."""

import sys
from pathlib import Path

import pytest

from dmd2.cli.main import main
from dmd2.data.pairs import PairStore

SHORT = ["teacher.pretrain.max_iterations=1", "teacher.pretrain.data.batch_size=4"]


@pytest.mark.parametrize("verb", ["pretrain", "pairs"])
def test_the_teacher_is_there_afterwards(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    few = ["pairs.num_pairs=4", "pairs.solver.num_steps=1"] if verb == "pairs" else []
    monkeypatch.setattr(sys, "argv", ["dmd2", verb, "experiment=digits_dmd", *SHORT, *few])
    main()
    assert len(list((tmp_path / "cache" / "teachers").glob("*.safetensors"))) == 1
    if verb == "pairs":
        (folder,) = (tmp_path / "cache" / "pairs").glob("[!.]*")
        assert len(PairStore(folder)) == 4 and PairStore(folder).images[:].std() > 0


@pytest.mark.slow
def test_pairs_of_two_ranks_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    few = ["pairs.num_pairs=10", "pairs.solver.num_steps=1", "pairs.at_once=3"]
    for cache, trainer in (
        ("one", []),
        ("two", ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]),
    ):
        places = [f"paths.cache={cache}", *trainer]
        monkeypatch.setattr(
            sys, "argv", ["dmd2", "pairs", "experiment=digits_dmd", *SHORT, *few, *places]
        )
        main()
    one, two = (
        {
            path.name: path.read_bytes()
            for path in next(Path(cache, "pairs").glob("[!.]*")).iterdir()
        }
        for cache in ("one", "two")
    )
    assert one == two and set(one) == {"noise.npy", "images.npy", "labels.npy", "manifest.json"}
