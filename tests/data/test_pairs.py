import numpy as np
import pytest
import torch

from dmd2.data.pairs import PairStore, PairWriter


def block(num, start=0):
    x = torch.arange(start, start + num * 4.0).view(num, 1, 2, 2)
    return x / 8, x / 127.5 - 1, torch.arange(num)


def writer(path, **options):
    return PairWriter(path, **{"num_pairs": 5, "shape": (1, 2, 2), "dtype": "uint8", "fingerprint": "a"} | options)


def test_written_in_two_goes_reads_as_one(tmp_path):
    noise, images, labels = block(5)
    first = writer(tmp_path / "pairs")
    first.append(noise[:3], images[:3], labels[:3])
    second = writer(tmp_path / "pairs")
    assert second.complete == 3
    second.append(noise[3:], images[3:], labels[3:])
    store = PairStore(tmp_path / "pairs")
    assert len(store) == 5 and store.shape == (1, 2, 2) and store.fingerprint == "a"
    assert store.noise.dtype == np.float16 and store.images.dtype == np.uint8
    np.testing.assert_array_equal(store.noise, noise.numpy())
    np.testing.assert_array_equal(store.images.ravel(), np.arange(20))
    np.testing.assert_array_equal(store.labels, labels.numpy())


def test_latents_are_kept_as_they_are(tmp_path):
    latents = torch.tensor([[-3.5, 12.25]])
    writer(tmp_path, num_pairs=1, shape=(2,), dtype="float16").append(latents, latents, torch.zeros(1))
    assert PairStore(tmp_path).images.tolist() == latents.tolist()


def test_a_crashed_block_is_written_again(tmp_path):
    """What was stored but not counted is as if it had never been."""
    writer(tmp_path).append(*block(2))
    crashed = writer(tmp_path)
    crashed._noise[2:] = 7
    resumed = writer(tmp_path)
    assert resumed.complete == 2
    resumed.append(*block(3, start=8))
    np.testing.assert_array_equal(PairStore(tmp_path).noise.ravel(), np.arange(20) / 8)


@pytest.mark.parametrize("other", [{"fingerprint": "b"}, {"num_pairs": 6}, {"shape": (4,)}, {"dtype": "float16"}])
def test_pairs_of_two_kinds_never_mix(tmp_path, other):
    writer(tmp_path).append(*block(2))
    with pytest.raises(ValueError, match=f"have {next(iter(other))} .* remove the folder"):
        writer(tmp_path, **other)


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no pairs in"):
        PairStore(tmp_path / "none")
    unfinished = writer(tmp_path)
    unfinished.append(*block(2))
    with pytest.raises(ValueError, match="2 of 5 pairs"):
        PairStore(tmp_path)
    with pytest.raises(ValueError, match="room for 3 more pairs, got 4"):
        unfinished.append(*block(4))
    noise, images, labels = block(2)
    with pytest.raises(ValueError, match="a block must be"):
        unfinished.append(noise, images[:1], labels)
    with pytest.raises(ValueError, match="uint8 or float16, got int8"):
        writer(tmp_path / "new", dtype="int8")
    with pytest.raises(ValueError, match="num_pairs"):
        writer(tmp_path / "new", num_pairs=0)
