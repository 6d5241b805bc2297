import numpy as np
import pytest
from sklearn.datasets import load_digits

from dmd2.data.captions import fill_phrasings
from dmd2.data.digits import Digits, SlantedDigits, slanted


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


def test_slanted_rows_are_shifted_about_the_middle():
    x = np.zeros((1, 1, 5, 5), np.uint8)
    x[..., 2] = 100  # an upright bar
    stairs = np.fliplr(np.eye(5, dtype=np.uint8)) * 100
    np.testing.assert_array_equal(slanted(x, 1.0)[0, 0], stairs)
    np.testing.assert_array_equal(slanted(x, 0.0), x)
    # Half a pixel is shared by two.
    np.testing.assert_array_equal(slanted(x, 0.5)[0, 0, 1], [0, 0, 50, 50, 0])


def test_few_slanted_images_are_of_all_digits(digits):
    captions = fill_phrasings(["a {}", "the {}"], list("0123456789"))
    few, whole = (
        SlantedDigits(0.5, num, captions=captions, batch_size=8, seed=0) for num in (50, None)
    )
    for data in (few, whole):
        data.setup()
    assert len(few.train) == 50 and np.bincount(few.train.labels % 10).min() >= 4
    assert len(whole.train) == 1347 and len(few.test) == len(whole.test) == 450
    np.testing.assert_array_equal(whole.test.x, slanted(digits.test.x, 0.5))
    assert few.fingerprint() != whole.fingerprint()
    with pytest.raises(ValueError, match=r"1347 training images, got data\.num_images=2000"):
        SlantedDigits(0.5, 2000, captions=captions, batch_size=8, seed=0).setup()
