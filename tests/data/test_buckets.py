"""Aspect buckets of latents: which image goes where, what is stored, in which order it is drawn."""

import io
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from test_blocks import on_ranks
from test_latents import Halved, beside, opened

from dmd2.data.captions import read_captions
from dmd2.data.images import Images
from dmd2.data.latents import Latents
from dmd2.data.preparation import prepare
from dmd2.data.preparation.bucket_folder import BUCKETS, parts_of
from dmd2.data.preparation.buckets import nearest
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.folder import ARRAYS
from dmd2.data.preparation.picture import as_shown, open_picture, shown_size
from dmd2.data.preparation.recipes import latents
from dmd2.data.sampler import BatchSampler, BucketSampler

SIZES = [[8, 8], [8, 12], [12, 8]]
SHOWN = [(24, 24), (16, 25), (48, 32), (16, 24), (20, 20), (8, 64)]
"""Heights and widths of the images; the last one is far from all buckets."""


def grey(i: int, size: tuple[int, int], kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 30 * i, np.uint8)).save(file, kind, **options)
    return file.getvalue()


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for i, size in enumerate(SHOWN):
        (folder / f"{i}.png").write_bytes(grey(i, size))
        (folder / f"{i}.txt").write_text(f"caption {i}")
    return folder


def made(source: Path, out: Path, buckets: object = SIZES, **options: object) -> list[str]:
    given = {"decoder": Decoder(8), "broken": "stop"} | options
    return latents(source, out, autoencoder=Halved(), caption="caption", buckets=buckets, **given)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return pictures(tmp_path / "images")


def test_the_nearest_shape_is_by_the_logarithm_of_ratios():
    buckets = [(64, 64), (96, 64)]
    middle = 1.5**0.5  # as far from 1 as from 1.5
    assert nearest((1000, 1000), buckets) == (0, 0)
    assert nearest((round(990 * middle), 1000), buckets)[0] == 0
    assert nearest((round(1010 * middle), 1000), buckets)[0] == 1
    # Of 3 x 1 a crop to 1.5 x 1 keeps half, and of 1 x 2 one to a square.
    assert nearest((300, 100), buckets) == (1, 0.5)
    assert nearest((100, 200), buckets) == (0, 0.5)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_a_size_is_that_of_the_image_turned_upright(kind: str, orientation: int):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = grey(1, (10, 20), kind, exif=exif)
    with open_picture(data) as image:
        shown = as_shown(image, "RGB", "white")
    assert shown_size(data) == (shown.height, shown.width)
    assert shown_size(data) == ((20, 10) if orientation > 4 else (10, 20))


def test_an_image_is_cropped_to_the_middle_of_the_bucket_s_shape_and_resized():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 15:45] = 255  # the middle of 1.5 x 1
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    for resize in ("lanczos", "adm"):
        found = Decoder([8, 12], resize=resize)(file.getvalue(), "a")
        assert found.shape == (3, 8, 12)
        assert found[..., 1:-1].min() > 200, "nothing of beyond, but by adm's filter at the edge"
    assert (Decoder([8, 12])(file.getvalue(), "a") == 255).all()
    assert Decoder([8, 12], crop="none")(file.getvalue(), "a")[..., 0].max() < 5
    assert Decoder([12, 8])(grey(1, (1, 500)), "a").shape == (3, 12, 8)
    with pytest.raises(ValueError, match="a size is height and width"):
        Decoder([8, 12, 3])


def test_each_bucket_is_a_prepared_folder_and_captions_stay_with_their_images(
    source: Path, tmp_path: Path
):
    lines = made(source, tmp_path / "out")
    assert lines[0] == (
        "the crop to 3 buckets takes 14.2% of an image on average, at most 81.2% (5.png)"
    )
    assert lines[1] == "far from all buckets, so that the crop takes more than 25%: 1 of 6 images"
    assert "2 latents to train on, 0 to test, 3 x 4 x 4, 2 captions" in lines[2]
    assert "3 latents to train on, 0 to test, 3 x 4 x 6, 3 captions" in lines[4]
    assert sorted(path.name for path in parts_of(tmp_path / "out")) == ["12x8", "8x12", "8x8"]
    table = read_captions(str(tmp_path / "out"))
    assert table == [f"caption {i}" for i in (0, 4, 1, 3, 5, 2)]
    data = opened(tmp_path / "out")
    assert data.buckets == [(8, 8), (8, 12), (12, 8)] and data.shape == (3, 4, 4)
    assert [split.x.shape[1:] for split in data.splits] == [(3, 4, 4), (3, 4, 6), (3, 6, 4)]
    for split in data.splits:
        for x, label in zip(split.x, split.labels, strict=True):
            i = int(table[label].split()[1])
            assert abs(x.mean() - 2 * (30 * i / 127.5 - 1)) < 5e-3
    assert made(source, tmp_path / "out")[0].endswith(
        "is finished, and what it holds is what its manifest says"
    )


@pytest.mark.parametrize("buckets", [None, [[8, 8]]])
def test_one_bucket_is_byte_for_byte_the_folder_without_buckets(
    buckets: object, source: Path, tmp_path: Path
):
    made(source, tmp_path / "out", buckets)
    latents(source, tmp_path / "plain", Decoder(8), Halved(), "caption", "stop")
    assert files(tmp_path / "out") == files(tmp_path / "plain")
    assert set(files(tmp_path / "out")) == {*ARRAYS, "manifest.json"}
    data = opened(tmp_path / "out")
    order = BatchSampler(6, 4, 0)
    for batch in islice(data.train_dataloader(), 3):
        batch = data.on_after_batch_transfer(batch)
        rows = order.rows(batch["index"])
        assert batch.keys() == {"real", "label", "index"}
        assert batch["label"].tolist() == data.train.labels[rows].tolist()
        assert torch.equal(batch["real"], torch.tensor(data.train.x[rows]).float())


@pytest.mark.parametrize(
    ("buckets", "words"),
    [
        ([[8, 8], [9, 12]], r"must be even, got \(9, 12\)"),
        ([[8, 8], [8]], "a size is height and width in pixels"),
        ([[8, 8], [12, 8], [24, 16]], r"\[\[12,8\],\[24,16\]\] are of one shape"),
        ([[8, 12], [12, 8]], r"\[\[8,12\],\[12,8\]\] lack the base size \[\[8,8\]\]"),
        ([[8, 8], [40, 8]], r"none of 6 images is nearest to the bucket \[40,8\]; take it out"),
    ],
)
def test_buckets_that_make_no_sense_are_refused_in_a_line(
    buckets: object, words: str, source: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=words) as error:
        made(source, tmp_path / "out", buckets)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_another_crop_other_options_and_other_things_are_refused(source: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"cropped to, got recipe\.decoder\.crop=none"):
        made(source, tmp_path / "out", decoder=Decoder(8, crop="none"))
    with pytest.raises(ValueError, match="lies in the source"):
        made(source, source / "out")
    made(source, tmp_path / "out")
    with pytest.raises(ValueError, match=r"made with buckets .*\[12, 8\]\], asked for None"):
        made(source, tmp_path / "out", None)
    with pytest.raises(ValueError, match=r"buckets .*, asked for \[\[8, 8\], \[8, 12\]\]; remove"):
        made(source, tmp_path / "out", SIZES[:2])
    made(source, tmp_path / "plain", None)
    with pytest.raises(ValueError, match=r"made with buckets None, asked for \[\["):
        made(source, tmp_path / "plain")
    # One that is not finished does not go on with others.
    (tmp_path / "out/8x12/manifest.json").unlink()
    with pytest.raises(ValueError, match="was begun from other files or with other options"):
        made(source, tmp_path / "out", SIZES[:2])
    with pytest.raises(FileNotFoundError, match="no prepared latents"):
        opened(tmp_path / "out", captions=["a"])


def test_what_was_altered_is_refused_by_name(source: Path, tmp_path: Path):
    made(source, tmp_path / "out")
    path = tmp_path / "out/12x8/train.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"12x8/train\.npy was altered"):
        opened(tmp_path / "out")
    with pytest.raises(ValueError, match=r"12x8/train\.npy was altered"):
        made(source, tmp_path / "out")
    path.write_bytes(data)
    (tmp_path / "out" / BUCKETS).write_text(json.dumps({"buckets": [[8, 8]]}))
    with pytest.raises(ValueError, match=r"buckets\.json is damaged.*prepare it again"):
        opened(tmp_path / "out", captions=["a"])


def test_a_file_that_is_no_image_is_left_out_of_whichever_bucket(source: Path, tmp_path: Path):
    (source / "2b.png").write_bytes(b"no image")
    (source / "2b.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"2b\.png.*recipe\.broken=skip"):
        made(source, tmp_path / "out")
    assert "1 broken, left out: 2b.png" in made(source, tmp_path / "out2", broken="skip")
    data = opened(tmp_path / "out2")
    assert sum(map(len, data.splits)) == 6 and len(data.captions) == 7
    with pytest.raises(ValueError, match="left out 1 files, asked for stop"):
        made(source, tmp_path / "out2")


@pytest.mark.parametrize(
    ("buckets", "words"),
    [
        (
            [[8, 8], [8, 12]],
            r"data\.buckets are \[\[8,8\],\[8,12\]\], and .* was prepared with "
            r"\[\[8,8\],\[8,12\],\[12,8\]\]; type data\.buckets=null",
        ),
        ([[8, 8], [8, 13]], "must be even"),
    ],
)
def test_other_buckets_than_were_prepared_are_refused(
    buckets: object, words: str, source: Path, tmp_path: Path
):
    made(source, tmp_path / "out")
    with pytest.raises(ValueError, match=words):
        opened(tmp_path / "out", buckets=buckets)
    assert opened(tmp_path / "out", buckets=SIZES[::-1]).buckets[0] == (8, 8)


def test_one_bucket_s_folder_alone_is_refused_by_its_shape(source: Path, tmp_path: Path):
    made(source, tmp_path / "out")
    assert len(opened(tmp_path / "out/8x8").train) == 2
    with pytest.raises(ValueError, match=r"no latents of the base size, \(3, 4, 4\)"):
        opened(tmp_path / "out/8x12")
    with pytest.raises(ValueError, match="holds latents, not images"):
        Images(tmp_path / "out/8x12", None, tmp_path / "cache", batch_size=1, seed=0)


def test_a_batch_has_one_bucket_and_says_its_size(source: Path, tmp_path: Path):
    made(source, tmp_path / "out")
    data = opened(tmp_path / "out", num_workers=1)
    batches = [data.on_after_batch_transfer(b) for b in islice(data.train_dataloader(), 12)]
    for batch in batches:
        height, width = batch["size"]
        assert batch["shape"] == (3, height // 2, width // 2)
        assert batch["real"].shape == (4, *batch["shape"])
        # Its rows are those of the captions that its labels name.
        means = [2 * (30 * int(data.captions[i].split()[1]) / 127.5 - 1) for i in batch["label"]]
        assert (batch["real"].mean((1, 2, 3)) - torch.tensor(means)).abs().max() < 5e-3
    assert len({batch["size"] for batch in batches}) == 3
    # A run that goes on behind batch 6, and a process of its own.
    again = opened(tmp_path / "out")
    again.load_state_dict({"consumed": 7})
    for batch, expected in zip(again.train_dataloader(), batches[7:], strict=False):
        assert batch["index"] == expected["index"]
        assert torch.equal(batch["real"].float(), expected["real"])
        assert torch.equal(batch["label"], expected["label"])
    assert data.identity() == again.identity() and data.fingerprint() == again.fingerprint()


def test_killed_on_two_ranks_it_goes_on_on_one_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prepare, "BLOCK", 4)
    # Of the first bucket each rank has a block: a rank encodes only when the other does.
    shapes = [(12, 12)] * 9 + [(16, 24), (12, 8)] * 3
    (tmp_path / "images").mkdir()
    for i, size in enumerate(shapes):
        (tmp_path / f"images/{i}.png").write_bytes(grey(i % 8, size))
        (tmp_path / f"images/{i}.txt").write_text(f"caption {i}")
    (tmp_path / "images/3.png").write_bytes(b"no image")
    made(tmp_path / "images", tmp_path / "one", broken="skip")
    with pytest.raises(ChildProcessError, match="killed by SIGKILL"):
        on_ranks(tmp_path / "two", 2, SIZES, rank0=2, rank1=1)
    assert not parts_of(tmp_path / "two") and (tmp_path / "two" / BUCKETS).exists()
    made(tmp_path / "images", tmp_path / "two", broken="skip")
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert len(files(tmp_path / "one")) == 1 + 3 * (len(ARRAYS) + 1)


NUMS = [5, 1, 10]


def test_ranks_draw_the_same_bucket_and_together_what_one_draws():
    whole = BucketSampler(NUMS, 6, 2)
    halves = [BucketSampler(NUMS, 3, 2, rank, 2) for rank in (0, 1)]
    for k in (40, 3, 0, 17, 16, 15):
        parts = [half.rows(k) for half in halves]
        np.testing.assert_array_equal(np.concatenate(parts), whole.rows(k))
        buckets = np.searchsorted([5, 6], whole.rows(k), "right")
        assert len(set(buckets.tolist())) == 1


def test_each_row_is_drawn_as_often_as_any_other():
    """In as many batches as there are rows, each bucket has a batch a row: every row comes as often
    as a batch has rows.
    """
    draws = list(islice(BucketSampler(NUMS, 4, 1), 2 * sum(NUMS)))
    assert [draw.k for draw in draws] == list(range(32))
    for cycle in (draws[:16], draws[16:]):
        counts = Counter(int(row) for draw in cycle for row in draw.rows)
        assert counts == dict.fromkeys(range(16), 4)
    firsts = [draw.rows[0] for draw in draws]
    assert firsts[:16] != firsts[16:]
    resumed = next(iter(BucketSampler(NUMS, 4, 1, start=21)))
    assert resumed.k == 21
    np.testing.assert_array_equal(resumed.rows, draws[21].rows)


def test_the_order_of_buckets_is_pinned():
    """Recorded: a changed order would break every resume."""
    rows = [BucketSampler([3, 4], 2, 0).rows(k).tolist() for k in range(7)]
    assert rows == [[1, 2], [5, 4], [0, 1], [0, 2], [6, 3], [3, 5], [4, 6]]


def test_sources_of_one_size_are_told_from_buckets(tmp_path: Path):
    plain = beside(tmp_path / "plain")
    latents(plain, tmp_path / "out", Decoder(8), Halved(), "caption", "stop")
    with pytest.raises(ValueError, match=r"was prepared with \[\]; type data\.buckets=null"):
        opened(tmp_path / "out", buckets=[[8, 8], [8, 12]])
    assert isinstance(opened(tmp_path / "out"), Latents)
