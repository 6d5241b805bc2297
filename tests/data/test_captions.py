"""Captioned digits: an image's label is the number of a caption that names its digit."""

import numpy as np
import pytest
import torch

from dmd2.data.captions import fill_phrasings
from dmd2.data.digits import Digits, TextDigits

CAPTIONS = fill_phrasings(["the digit {}", "{} by hand"], list("0123456789"))


def ready(data):
    data.prepare_data()
    data.setup()
    return data


def test_every_phrasing_meets_every_word():
    assert fill_phrasings(["a {}", "{} b"], ["x", "y"]) == ["a x", "a y", "x b", "y b"]
    with pytest.raises(ValueError, match="needs a place for the word"):
        fill_phrasings(["a digit"], ["x"])


def test_an_image_keeps_its_digit_and_its_caption_names_it():
    plain, text = (
        ready(Digits(batch_size=8, seed=0)),
        ready(TextDigits(CAPTIONS, batch_size=8, seed=5)),
    )
    for theirs, ours in ((plain.train, text.train), (plain.test, text.test)):
        np.testing.assert_array_equal(theirs.x, ours.x)
        np.testing.assert_array_equal(theirs.labels, text.class_of(torch.from_numpy(ours.labels)))
        for digit, caption in zip(theirs.labels, ours.labels, strict=True):
            assert str(digit) in text.class_names[caption]
    assert np.bincount(text.train.labels).min() > 40, "every caption has images"
    again = ready(TextDigits(CAPTIONS, batch_size=4, seed=0))
    np.testing.assert_array_equal(again.train.labels, text.train.labels)


def test_a_batch_has_the_captions_of_its_own_images():
    text = ready(TextDigits(CAPTIONS, batch_size=16, seed=0))
    batch = next(iter(text.train_dataloader()))
    known = {
        (x.tobytes(), int(label)) for x, label in zip(text.train.x, text.train.labels, strict=True)
    }
    assert all(
        (x.numpy().tobytes(), int(label)) in known
        for x, label in zip(batch["real"], batch["label"], strict=True)
    )


def test_other_captions_are_other_data():
    fewer, more = (
        TextDigits(captions, batch_size=8, seed=0) for captions in (CAPTIONS[:10], CAPTIONS)
    )
    assert fewer.fingerprint() != more.fingerprint()
    with pytest.raises(ValueError, match="ten digits in turn"):
        TextDigits(CAPTIONS[:7], batch_size=8, seed=0)
