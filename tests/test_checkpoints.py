"""Checkpoints: whole or refused, written or not there, and which of them stay."""

import random
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import lightning as L
import pytest
import torch

from dmd2.io.replace import unused_name
from dmd2.training.callbacks.checkpoint import Checkpoint
from dmd2.training.callbacks.evaluation import Evaluation
from dmd2.training.checkpoints import BackgroundIO, load, newest, saved, verify, write
from dmd2.training.record import Record
from test_files import needs_full
from test_module import module, toy

NAN = float("nan")
STATE = {"state_dict": {"weight": torch.arange(300.0)}, "global_step": 3}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two checkpoints, the older one first."""
    paths = tmp_path / "00000001.ckpt", tmp_path / "00000002.ckpt"
    for path in paths:
        write(STATE, path, {"iteration": int(path.stem)})
    return paths


def test_a_checkpoint_is_read_as_it_was_written(pair: tuple[Path, Path]) -> None:
    torch.testing.assert_close(load(pair[1]), STATE, rtol=0, atol=0)
    assert verify(pair[1]).manifest["iteration"] == 2


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("damage", ["flipped", "truncated", "grown", "manifest"])
def test_a_damaged_checkpoint_is_never_read(
    pair: tuple[Path, Path], damage: str, seed: int
) -> None:
    draw, path = random.Random(seed), pair[1]
    if damage == "manifest":
        path = path.with_suffix(".json")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    if damage == "grown":
        content += bytes(draw.randint(1, 9))
    path.write_bytes(
        content[: draw.randrange(len(content) - 1)]
        if damage in ("truncated", "manifest")
        else content
    )
    with pytest.raises(ValueError, match=r"00000002\.ckpt (is damaged|has no readable manifest)"):
        load(pair[1])
    assert newest(pair[0].parent).path == pair[0]


def test_no_bit_of_a_manifest_that_flips_changes_what_is_read(pair: tuple[Path, Path]) -> None:
    path = pair[1].with_suffix(".json")
    whole, manifest = path.read_bytes(), verify(pair[1]).manifest
    for i in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[i // 8] ^= 1 << i % 8
        path.write_bytes(damaged)
        try:
            assert verify(pair[1]).manifest == manifest
        except ValueError as error:
            assert "00000002.ckpt has no readable manifest" in str(error)


@needs_full
def test_a_full_disk_takes_no_checkpoint_along(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(int=1))
    before = sorted(pair[0].parent.iterdir())
    path = pair[0].with_name("00000003.ckpt")
    for numbers in (3, 300_000):  # less than a buffer, and more
        unused_name(path).symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"00000003\.ckpt"):
            write({"x": torch.zeros(numbers)}, path, {})
        assert sorted(path.parent.iterdir()) == before and newest(path.parent).path == pair[1]


# Which stay


class Given(Evaluation):
    """Scores that are given, the one of iteration 1 first, in place of those of samples."""

    def __init__(self, fids: Sequence[float]) -> None:
        super().__init__(every=1, evaluator=None, record=Record("fid"), score_teacher=dict)
        self.fids = fids

    def score(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        iteration: int,
        num_counts: int | None,
    ) -> None:
        self.record.history.append(
            {"iteration": iteration, "scores": {"raw": {"fid": self.fids[iteration - 1]}}}
        )


def kept(
    folder: Path, fids: Sequence[float], keep: int, every: int = 1, start: Path | None = None
) -> list[int]:
    """Train with these scores; the iterations whose checkpoints are there at the end."""
    given = Given(fids)
    own = {"identity": dict, "io": BackgroundIO(), "record": given.record}
    checkpoint = Checkpoint(str(folder), every, keep, **own)
    L.Trainer(
        accelerator="cpu",
        max_steps=len(fids),
        callbacks=[given, checkpoint],
        plugins=[checkpoint.io],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    ).fit(module(), datamodule=toy(), ckpt_path=start, weights_only=True)
    return [int(path.stem) for path in saved(folder)]


@pytest.mark.parametrize(
    ("fids", "keep", "expected"),
    [
        ([5, 1, 2, 3, 4], 2, [2, 4, 5]),
        ([1, 2, 3, 0.5, 2, 3], 1, [4, 6]),  # a better one takes the best one's place
        ([9, 8, 7, 6, 5], 1, [5]),
        ([2, 1, 1, 1, 3], 1, [2, 5]),  # the first of equals
        ([NAN, 2, 1, 3, 4], 1, [3, 5]),  # no number is no score
    ],
)
def test_the_newest_stay_and_the_best(
    tmp_path: Path, fids: list[float], keep: int, expected: list[int]
) -> None:
    assert kept(tmp_path, fids, keep) == expected


def test_the_best_is_of_those_that_have_a_checkpoint(tmp_path: Path) -> None:
    assert kept(tmp_path, [9, 0.1, 9, 9, 9, 2, 9, 9, 9, 3, 9, 4], keep=1, every=3) == [6, 12]


def test_the_best_stays_across_a_resume_until_a_better_one_comes(tmp_path: Path) -> None:
    assert kept(tmp_path, [3, 1, 2, 4], keep=1) == [2, 4]
    fids = [3, 1, 2, 4, 5, 6, 0.5, 7]
    assert kept(tmp_path, fids[:6], keep=1, start=newest(tmp_path).path) == [2, 6]
    assert kept(tmp_path, fids, keep=1, start=newest(tmp_path).path) == [7, 8]
