import numpy as np
import pytest
import torch

from dmd2.data.pairs import PairStore, PairWriter


def block(num, start=0):
    x = torch.arange(start, start + num * 4.0).view(num, 1, 2, 2)
    return x / 8, x / 127.5 - 1, torch.arange(num)


def writer(path, **options):
    defaults = {
        "num_pairs": 5,
        "shape": (1, 2, 2),
        "dtype": "uint8",
        "fingerprint": "a",
        "at_once": 3,
    }
    return PairWriter(path, **defaults | options)


def cut(parts, rows):
    return [part[rows.start : rows.stop] for part in parts]


def test_written_in_two_goes_reads_as_one(tmp_path):
    noise, images, labels = block(5)
    first = writer(tmp_path / "pairs")
    rows = next(first.free())
    first.write(rows, *cut((noise, images, labels), rows))
    second = writer(tmp_path / "pairs", at_once=1)
    assert rows == range(3) and second.num_written() == 3
    for rows in second.free():
        second.write(rows, *cut((noise, images, labels), rows))
    second.finish()
    store = PairStore(tmp_path / "pairs")
    assert len(store) == 5 and store.shape == (1, 2, 2) and store.fingerprint == "a"
    assert store.noise.dtype == np.float16 and store.images.dtype == np.uint8
    np.testing.assert_array_equal(store.noise, noise.numpy())
    np.testing.assert_array_equal(store.images.ravel(), np.arange(20))
    np.testing.assert_array_equal(store.labels, labels.numpy())
    third = writer(tmp_path / "pairs")
    assert (
        not list(third.free())
        and third.num_written() == 5
        and not (tmp_path / "pairs" / "progress").exists()
    )
    third.finish()


def test_latents_are_kept_as_they_are(tmp_path):
    latents = torch.tensor([[-3.5, 12.25]])
    store = writer(tmp_path, num_pairs=1, shape=(2,), dtype="float16")
    store.write(next(store.free()), latents, latents, torch.zeros(1))
    store.finish()
    assert PairStore(tmp_path).images.tolist() == latents.tolist()


@pytest.mark.parametrize(
    "other", [{"fingerprint": "b"}, {"num_pairs": 6}, {"shape": (4,)}, {"dtype": "float16"}]
)
def test_pairs_of_two_kinds_never_mix(tmp_path, other):
    writer(tmp_path)
    with pytest.raises(ValueError, match=f"have {next(iter(other))} .* remove the folder"):
        writer(tmp_path, **other)


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no pairs in"):
        PairStore(tmp_path / "none")
    unfinished = writer(tmp_path)
    with pytest.raises(ValueError, match="is not finished; start its generation again"):
        PairStore(tmp_path)
    noise, images, labels = block(3)
    with pytest.raises(ValueError, match=r"a block must be noise and images \[3, 1, 2, 2\]"):
        unfinished.write(range(3), noise, images[:1], labels)
    with pytest.raises(ValueError, match="uint8 or float16, got int8"):
        writer(tmp_path / "new", dtype="int8")
    with pytest.raises(ValueError, match="num_pairs"):
        writer(tmp_path / "new", num_pairs=0)


@pytest.mark.parametrize("name", ["noise", "images", "labels"])
@pytest.mark.parametrize(
    ("damage", "error"), [("bit", "altered"), ("shorter", "bytes"), ("gone", "missing")]
)
def test_pairs_that_were_altered_are_refused(name: str, damage: str, error: str, tmp_path):
    made = writer(tmp_path)
    for rows in made.free():
        made.write(rows, *cut(block(5), rows))
    made.finish()
    assert len(PairStore(tmp_path)) == 5
    path = tmp_path / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content[:-1] if damage == "shorter" else content)
    if damage == "gone":
        path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=f"{name}.*{error}.*; remove"):
        PairStore(tmp_path)
