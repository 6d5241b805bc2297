import numpy as np
import pytest
import torch

from dmd2.data.toy import Toy2D


def toy(name, **options):
    data = Toy2D(
        name, **{"batch_size": 4, "seed": 0, "num_train": 8000, "num_test": 1000} | options
    )
    data.prepare_data()
    data.setup()
    return data


def mode_of(data, x):
    return np.linalg.norm(x[:, None] - data.modes, axis=-1).argmin(1)


@pytest.mark.parametrize("name, num_modes", [("ring", 8), ("grid", 25), ("checkerboard", 8)])
def test_unit_variance_and_even_modes(name, num_modes):
    data = toy(name)
    assert (
        data.shape == (2,)
        and data.train.x.dtype == np.float32
        and data.modes.shape == (num_modes, 2)
    )
    assert len(data.train) == 8000 and len(data.test) == 1000
    assert data.num_classes == 0 and data.provides() == {"real"}
    np.testing.assert_allclose(data.train.x.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(data.train.x.std(0), 1, atol=0.01)
    # A few points of a Gaussian are nearer to the next mode.
    np.testing.assert_allclose(np.bincount(mode_of(data, data.train.x)), 8000 / num_modes, atol=2)
    spread = (data.train.x - data.modes[mode_of(data, data.train.x)]).std(0)
    np.testing.assert_allclose(spread, data.mode_std, rtol=0.05)


def test_checkerboard_squares_do_not_touch_sideways():
    data = toy("checkerboard")
    square = np.floor(data.train.x / (np.sqrt(3) / 2)).astype(int)
    assert (square.sum(1) % 2 == 0).all() and square.min() == -2 and square.max() == 1


def test_dropped_modes_are_gone_but_known():
    data = toy("ring", drop=[0, 3])
    for split in (data.train, data.test):
        assert set(mode_of(data, split.x)) == {1, 2, 4, 5, 6, 7}
    np.testing.assert_array_equal(data.modes, toy("ring").modes)
    assert data.fingerprint() != toy("ring").fingerprint() != toy("ring", std=0.2).fingerprint()


def test_splits_differ_and_repeat():
    assert not np.array_equal(toy("ring").train.x[:1000], toy("ring").test.x)
    np.testing.assert_array_equal(toy("ring").train.x, toy("ring").train.x)


def test_points_are_in_model_space():
    data = toy("grid")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert torch.equal(batch["real"], data.to_pixels(data.to_model(batch["real"])))
    assert set(map(tuple, batch["real"].tolist())) <= set(map(tuple, data.train.x.tolist()))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "spiral"}, "name must be ring, grid or checkerboard, got spiral"),
        ({"name": "ring", "flip": True}, "no left and right"),
        ({"name": "ring", "std": 0.0}, "std must be"),
        ({"name": "checkerboard", "std": 0.1}, "no std to choose"),
        ({"name": "ring", "drop": [8]}, r"modes 0\.\.7, got \[8\]"),
        ({"name": "ring", "drop": list(range(8))}, "some, not all"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        toy(**options)
