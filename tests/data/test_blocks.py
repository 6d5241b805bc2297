"""The queue of blocks that processes share: however many they are, and whichever of them is killed,
the result is the same bytes.
"""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from test_latents import Halved, beside
from torch import Tensor

from dmd2.cli.errors import one_line
from dmd2.data.preparation import prepare
from dmd2.data.preparation.blocks import BlockQueue
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.folder import ARRAYS
from dmd2.data.preparation.recipes import latents
from dmd2.distributed import process_group
from dmd2.distributed.launch import launch
from dmd2.io.files import discard


def queue_in(folder: Path, plan: str = "a", num_rows: int = 10, at_once: int = 4) -> BlockQueue:
    return BlockQueue(folder / "progress", plan, num_rows, at_once, create=lambda: None)


def test_what_is_done_is_not_done_again_and_a_block_may_have_another_size(tmp_path: Path) -> None:
    first = queue_in(tmp_path)
    for rows in first.free():
        if rows.start:
            break  # and so was never done
        first.record(rows, {"start": rows.start})
    again, done = queue_in(tmp_path, at_once=3), []
    assert again.num_done() == 4
    for rows in again.free():
        done.append(rows)
        again.record(rows, {"start": rows.start})
    assert done == [range(4, 7), range(7, 10)]
    assert [result["start"] for result in again.results()] == [0, 4, 7] and again.num_done() == 10
    discard(again.folder)
    assert not list(tmp_path.iterdir()) and again.num_done() == 10 and not list(again.free())


def test_another_plan_does_not_go_on_where_one_stopped(tmp_path: Path) -> None:
    queue_in(tmp_path)
    with pytest.raises(ValueError, match="begun from other files or with other options"):
        queue_in(tmp_path, "b")


class Job(NamedTuple):
    """A preparation, and after how many blocks which of its ranks are killed."""

    out: Path
    num: int
    killed_after: dict[int, int]
    buckets: list[list[int]] | None = None


class Met(Halved):
    """Encodes when every rank has a block, so that all have a share; kills its process in time."""

    job: Job
    num_encoded = 0

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        here = self.job.out.with_name(f"{self.job.out.name}-{self.job.num}")
        here.mkdir(exist_ok=True)
        (here / str(process_group.rank())).touch()
        while len(list(here.iterdir())) < self.job.num:
            time.sleep(0.01)
        if self.num_encoded == self.job.killed_after.get(process_group.rank()):
            os.kill(os.getpid(), signal.SIGKILL)
        self.num_encoded += 1
        return super().encode(images, noise)


def as_rank(job: Job) -> None:
    torch.set_num_threads(1)
    prepare.BLOCK = 4
    codec = Met()
    codec.job = job
    with process_group.process_group(on_gpu=False):
        print(
            "\n".join(
                latents(
                    *(job.out.parent / "images", job.out, Decoder(8), codec, "caption", "skip"),
                    job.buckets,
                )
            )
        )


def on_ranks(
    out: Path, num: int, buckets: list[list[int]] | None = None, **killed_after: int
) -> None:
    launch(
        as_rank,
        Job(out, num, {int(name[-1]): after for name, after in killed_after.items()}, buckets),
        num,
        one_line,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with captioned images, two of them broken, and what one process makes of them, in
    blocks of four.
    """
    folder = tmp_path_factory.mktemp("shared")
    beside(folder / "images", 43)
    for i in (0, 17):
        (folder / "images" / f"{i}.png").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "BLOCK", 4)
        latents(folder / "images", folder / "one", Decoder(8), Halved(), "caption", "skip")
    assert set(files(folder / "one")) == {*ARRAYS, "manifest.json"}
    return folder


def test_ranks_share_the_work_and_one_speaks(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    on_ranks(place / "two", 2)
    assert files(place / "two") == files(place / "one")
    said = capfd.readouterr().out
    assert (
        said.count("41 latents to train on") == 1
        and said.count("2 broken, left out: 0.png, 17.png") == 1
    )


def test_a_block_whose_rank_died_is_another_s(place: Path) -> None:
    with pytest.raises(ChildProcessError, match="rank 1 of 2 was killed by SIGKILL"):
        on_ranks(place / "survived", 2, rank1=1)
    assert files(place / "survived") == files(place / "one")


def test_killed_on_three_ranks_it_goes_on_where_it_was_on_two(place: Path) -> None:
    with pytest.raises(ChildProcessError, match="killed by SIGKILL"):
        on_ranks(place / "killed", 3, rank0=2, rank1=1, rank2=2)
    assert not (place / "killed").exists()
    assert len(list(place.glob("killed.partial/progress/*-*.json"))) == 5
    on_ranks(place / "killed", 2)
    assert (
        files(place / "killed") == files(place / "one") and not (place / "killed.partial").exists()
    )
