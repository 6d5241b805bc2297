"""Captions of files, captions alone, and latents of captioned images: prepared, opened, refused."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dmd2.data import captions
from dmd2.data.images import Images
from dmd2.data.latents import Latents
from dmd2.data.preparation.captioned import captioned
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.recipes import latents
from dmd2.data.prompts import Prompts


class Halved:
    """A made-up autoencoder: latents are every second pixel, twice as large; the noise is added as
    it is.
    """

    shape = (3, 4, 4)

    def __init__(self, scaling_factor: float = 2.0) -> None:
        self.scaling_factor = scaling_factor

    def shape_at(self, size: Sequence[int]) -> tuple[int, ...]:
        if any(pixels % 2 for pixels in size):
            raise ValueError(f"height and width must be even, got {size}")
        return (3, *(pixels // 2 for pixels in size))

    def require(self) -> None:
        pass

    def identity(self) -> dict:
        return {"vae": "halved", "scaling_factor": self.scaling_factor, "resolution": 8}

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        return (images[:, :, ::2, ::2] + 1e-3 * noise) * self.scaling_factor

    def offload(self) -> None:
        """It is on the host."""

    def decode(self, x: Tensor) -> Tensor:
        return (x / self.scaling_factor).repeat_interleave(2, 2).repeat_interleave(2, 3)


def png(i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 12, 3), 20 * i % 256, np.uint8)).save(file, "png")
    return file.getvalue()


def beside(folder: Path, num: int = 5) -> Path:
    folder.mkdir()
    for i in range(num):
        (folder / f"{i}.png").write_bytes(png(i))
        (folder / f"{i}.txt").write_text(f"caption {i}\n")
    return folder


def listed(folder: Path) -> Path:
    (folder / "train").mkdir(parents=True)
    rows = [json.dumps({"file_name": f"{i}.png", "caption": f"caption {i}"}) for i in range(5)]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(rows))
    for i in range(5):
        (folder / "train" / f"{i}.png").write_bytes(png(i))
    return folder


def shards(folder: Path) -> Path:
    folder.mkdir()
    for shard, rows in (("00001", [2, 3, 4]), ("00000", [0, 1])):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i in rows:
                said = (f"{i}.txt", f"caption {i}".encode())
                if i % 2:
                    said = (
                        f"{i}.json",
                        json.dumps({"caption": f"caption {i}", "url": "x"}).encode(),
                    )
                for name, data in (said, (f"{i}.png", png(i))):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "00000_stats.json").write_text("{}")
    return folder


def made(source: Path, out: Path) -> list[str]:
    return latents(source, out, Decoder(8), Halved(), "caption", "stop")


def opened(folder: Path, codec: Halved | None = None, **options) -> Latents:
    table = options.pop("captions", None) or captions.read_captions(str(folder))
    data = Latents(
        folder, captions=table, autoencoder=codec or Halved(), batch_size=4, seed=0, **options
    )
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("kind", [beside, listed, shards])
def test_captioned_images_of_every_kind_become_the_same_latents(kind, tmp_path: Path):
    report = made(kind(tmp_path / "images"), tmp_path / "out")
    assert "5 latents to train on, 0 to test, 3 x 4 x 4, 5 captions" in report[0]
    data = opened(tmp_path / "out")
    assert [data.captions[i] for i in data.train.labels] == [f"caption {i}" for i in range(5)]
    expected = 2 * (20 * np.arange(5) / 127.5 - 1)
    assert data.train.x.dtype == np.float16 and isinstance(data.train.x, np.memmap)
    np.testing.assert_allclose(data.train.x.mean((1, 2, 3)), expected, atol=5e-3)
    assert data.train.x.std() > 0, "a draw from the posterior"
    assert (data.shown(data.train.x).mean((1, 2, 3)).round() == 20 * np.arange(5)).all()
    batch = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(batch)
    assert batch["real"].dtype == torch.float32 and batch["real"].shape == (4, 3, 4, 4)
    assert "is finished" in made(tmp_path / "images", tmp_path / "out")[0]


def test_an_image_without_a_caption_and_a_broken_line_are_named(tmp_path: Path):
    source = beside(tmp_path / "images")
    (source / "3.txt").unlink()
    with pytest.raises(ValueError, match=r"1 of 5 images .* no caption, e\.g\. 3\.png"):
        captioned(source, "caption")
    other = listed(tmp_path / "other")
    (other / "train" / "metadata.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"line 1 of train/metadata\.jsonl .* no JSON"):
        captioned(other, "caption")


def test_latents_of_another_kind_than_the_teacher_s_are_refused_by_both_values(tmp_path: Path):
    made(beside(tmp_path / "images"), tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"scaling_factor 2\.0, and the teacher's are of scaling_factor 3\.0"
    ):
        opened(tmp_path / "out", Halved(3.0))
    with pytest.raises(FileNotFoundError, match="dmd2 prepare recipe=latents"):
        opened(tmp_path / "gone", captions=["a"])
    with pytest.raises(ValueError, match="holds latents, not images"):
        Images(tmp_path / "out", None, tmp_path / "cache", batch_size=1, seed=0)
    with pytest.raises(ValueError, match="do not begin with"):
        opened(tmp_path / "out", captions=["another"])
    with pytest.raises(ValueError, match=r"made with decoder .* asked for .*'crop': 'none'"):
        latents(
            tmp_path / "images",
            tmp_path / "out",
            Decoder(8, crop="none"),
            Halved(),
            "caption",
            "stop",
        )
    with pytest.raises(ValueError, match="mirror"):
        opened(tmp_path / "out", flip=True)


def test_other_captions_may_follow(tmp_path: Path):
    made(beside(tmp_path / "images"), tmp_path / "out")
    (tmp_path / "more.txt").write_text("another\n\n a\u2028third \n", encoding="utf-8")
    table = captions.read_captions([str(tmp_path / "out"), str(tmp_path / "more.txt")])
    data = opened(tmp_path / "out", captions=table)
    assert (
        table[5:] == ["another", "a\u2028third"] and data.num_classes == 7 and len(data.train) == 5
    )


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import torch
from dmd2.data.preparation import prepare
from test_latents import Halved, made
torch.set_num_threads(1)
prepare.BLOCK = 2
class Killed(Halved):
    def encode(self, images, noise):
        Killed.num = getattr(Killed, "num", 0) + 1
        if Killed.num == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(images, noise)
import test_latents
test_latents.Halved = Killed
made(Path("images"), Path("out"))
"""


def test_a_preparation_that_is_killed_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    beside(tmp_path / "images")
    paths = [str(Path(__file__).parent), *sys.path]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED.format(paths=paths)], env=os.environ, timeout=600
    )
    assert ended.returncode == -signal.SIGKILL
    assert len(list(Path("out.partial/progress").glob("*-*.json"))) == 1
    made(Path("images"), Path("out"))
    made(Path("images"), Path("whole"))
    assert Path("out/train.npy").read_bytes() == Path("whole/train.npy").read_bytes()


def rows(path: Path) -> Path:
    """Three captions as the suffix says, one of them missing."""
    table = [{"text": "a", "id": 1}, {"text": None, "id": 2}, {"text": "c, d", "id": 3}]
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, table)) + "\n")
    elif path.suffix == ".csv":
        path.write_text('text,id\na,1\n,2\n"c, d",3\n')
    else:
        pyarrow = pytest.importorskip(
            "pyarrow", reason="pyarrow is not installed: pip install '.[parquet]'"
        )
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(table), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_captions_are_read_from_a_column(suffix: str, tmp_path: Path):
    path = rows(tmp_path / f"captions{suffix}")
    assert captions.read_captions(str(path), "text") == ["a", "", "c, d"]
    with pytest.raises(
        ValueError, match=r"no column caption, it has text, id; type data\.captions\.column=NAME"
    ):
        captions.read_captions(str(path))


def test_files_without_captions_are_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no captions at"):
        captions.read_captions(str(tmp_path / "gone.txt"))
    for name, text, words in (
        ("a.txt", "\n\n", "no captions in"),
        ("a.pkl", "x", "cannot read captions"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=words):
            captions.read_captions(str(tmp_path / name))
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"EXTRAS=dev,parquet, or pip install '\.\[parquet\]'"):
        captions.read_captions(str(tmp_path / "a.parquet"))


def test_captions_alone_give_batches_without_samples():
    data = Prompts(["a", "b", "c"], Halved(), batch_size=2, seed=0)
    data.setup()
    assert data.shape == (3, 4, 4) and data.num_classes == 3 and data.provides() == {"label"}
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    assert batch.keys() == {"label", "index"} and batch["label"].shape == (2,)
    assert data.to_pixels(torch.zeros(1, 3, 4, 4)).unique().tolist() == [128]
    assert data.fingerprint() != Prompts(["a", "b"], Halved(), batch_size=2, seed=0).fingerprint()
