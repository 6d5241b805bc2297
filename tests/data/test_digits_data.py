import numpy as np
import pytest
from sklearn.datasets import load_digits

from dmd2.data.digits import Digits


@pytest.fixture(scope="module")
def digits():
    data = Digits(batch_size=8, seed=0)
    data.prepare_data()
    data.setup()
    return data


def test_sizes_and_names(digits):
    assert (len(digits.train), len(digits.test)) == (1347, 450)
    assert digits.shape == (1, 8, 8) and digits.num_classes == 10
    assert digits.class_names == list("0123456789") and digits.provides() == {"real", "label"}


def test_splits_share_classes_alike(digits):
    train, test = (np.bincount(split.labels) for split in (digits.train, digits.test))
    np.testing.assert_allclose(test, (train + test) * 450 / 1797, atol=1)


def test_splits_are_disjoint_and_whole(digits):
    images, labels = load_digits(return_X_y=True)
    # No two digits of the set are alike, so that pixels name a digit.
    known = {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)}
    train, test = (
        {
            ((image.astype(np.float64) * 16 / 255).round().tobytes(), label)
            for image, label in zip(s.x, s.labels, strict=True)
        }
        for s in (digits.train, digits.test)
    )
    assert train | test == known and not train & test


def test_pixels_span_a_byte(digits):
    assert digits.train.x.dtype == np.uint8
    assert set(np.unique(digits.train.x)) == {round(i * 255 / 16) for i in range(17)}


def test_a_misspelt_option_is_refused():
    with pytest.raises(TypeError, match="batchsize"):
        Digits(batchsize=8, seed=0)
