"""The suite end to end: keys, batches, ranks, the floor of real data, and errors that say what to
type.
"""

import json
import socket

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import distributed, multiprocessing

from dmd2.metrics.accuracy import ClassAccuracy
from dmd2.metrics.base import MeanScore
from dmd2.metrics.baselines import class_gaussian
from dmd2.metrics.classifier import ClassifierLogits
from dmd2.metrics.detectors import Flatten, RandomConvolutions
from dmd2.metrics.frechet import RelativeFrechetDistance
from dmd2.metrics.kid import KernelDistance
from dmd2.metrics.precision_recall import NearestTrain, PrecisionRecall
from dmd2.metrics.suite import MetricSuite


def image_suite(batch_size=50):
    return MetricSuite(
        detectors={"pixels": Flatten(), "random": RandomConvolutions(seed=0)},
        metrics={
            "rfd": RelativeFrechetDistance("random", "rfd"),
            "kid": KernelDistance("random", num_subsets=4, subset_size=20),
            "manifold": PrecisionRecall("pixels"),
            "nearest": NearestTrain("pixels"),
        },
        batch_size=batch_size,
    )


def batches(images, labels, size):
    return list(zip(images.split(size), labels.split(size), strict=True))


def test_values_are_sorted_floats_whatever_the_batches(images, labels):
    suite, other = image_suite(), image_suite(batch_size=7)
    suite.fit(images[:80], labels[:80], images[80:], labels[80:])
    other.fit(images[:80].numpy(), labels[:80].numpy(), images[80:].numpy(), labels[80:].numpy())
    noise = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    values = suite.evaluate(batches(noise, labels[:40], 40))
    assert list(values) == ["kid", "near_copies", "nearest_train", "precision", "recall", "rfd"]
    assert all(type(value) is float for value in values.values())
    assert other.evaluate(batches(noise, labels[:40], 3)) == pytest.approx(values, rel=1e-3)
    assert (
        suite.evaluate(batches(noise, labels[:40], 40)) == values
    )  # nothing is left from the last time


def test_floor_is_the_test_split_as_samples(images, labels):
    suite = image_suite()
    suite.fit(images[:80], labels[:80], images[80:], labels[80:])
    floor = suite.floor()
    assert floor == pytest.approx(suite.evaluate(batches(images[80:], labels[80:], 50)))
    assert floor["near_copies"] == pytest.approx(0.05)
    copies = suite.evaluate(batches(images[:80], labels[:80], 50))
    assert copies["near_copies"] == 1
    assert copies["rfd"] < 1e-3 < floor["rfd"]


def evaluate_on_rank(rank, port, images, labels, path):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    suite = image_suite()
    suite.fit(images[:80], labels[:80], images[80:], labels[80:])
    values = suite.evaluate(batches(images[80 + rank :: 2], labels[80 + rank :: 2], 9))
    (path / f"{rank}.json").write_text(json.dumps([values, suite.floor()]))
    distributed.destroy_process_group()


def test_two_ranks_get_what_one_gets(images, labels, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(evaluate_on_rank, (port, images, labels, tmp_path), nprocs=2)
    suite = image_suite()
    suite.fit(images[:80], labels[:80], images[80:], labels[80:])
    for rank in range(2):
        values, floor = json.loads((tmp_path / f"{rank}.json").read_text())
        assert values == pytest.approx(
            suite.floor(), rel=1e-4
        )  # other batches: a network may round otherwise
        assert floor == suite.floor()


class Counted(Flatten):
    """Pixels, with a name and a count of how often they were asked for."""

    asked = 0

    def key(self):
        return "pixels"

    def features(self, samples):
        Counted.asked += 1
        return super().features(samples)


class Brightness(MeanScore):
    """Of an image: its mean pixel, scaled."""

    reports = ("brightness",)
    scale = 10.0

    def scores(self, features, labels):
        return features.mean(1)


def test_a_score_of_each_sample_wants_no_features_of_real_data():
    class Pixels(Flatten):
        def features(self, samples):
            seen.append(len(samples))
            return super().features(samples)

    seen, images = [], torch.randint(0, 256, (12, 1, 4, 4), dtype=torch.uint8)
    labels = torch.zeros(12).long()
    suite = MetricSuite({"pixels": Pixels()}, {"bright": Brightness("pixels")})
    suite.fit(images, labels, images[:5], labels[:5])
    assert seen == [1], "its width, and whether it reads such data"
    found = suite.evaluate(batches(images, labels, [7, 5]))
    assert found == {"brightness": pytest.approx(10 * float(Flatten()(images).mean()), abs=1e-5)}
    assert seen == [1, 7, 5] and suite.floor().keys() == {"brightness"}


def test_a_detector_that_no_metric_reads_sees_nothing():
    suite = MetricSuite({"pixels": Flatten(), "random": RandomConvolutions()}, {"random": None})
    assert not suite.detectors


def test_an_image_s_score_of_points_is_refused_before_sampling():
    suite = MetricSuite({"random": RandomConvolutions()}, {"bright": Brightness("random")})
    points = torch.randn(12, 2)
    with pytest.raises(ValueError, match="the detector random reads images, and this data are po"):
        suite.fit(points, torch.zeros(12), points, torch.zeros(12))


def test_features_of_real_data_are_kept_under_the_data_s_and_the_detector_s_key(
    images, labels, tmp_path
):
    def floor(key):
        suite = MetricSuite(
            {"pixels": Counted()}, {"kid": KernelDistance("pixels", subset_size=20)}, 200, tmp_path
        )
        suite.fit(images[:80], labels[:80], images[80:], labels[80:], key=key)
        return suite.floor()

    first = floor("data")
    assert (Counted.asked, len(list(tmp_path.glob("*.safetensors")))) == (3, 1)
    assert floor("data") == first and Counted.asked == 4
    floor("other data")
    assert (Counted.asked, len(list(tmp_path.glob("*.safetensors")))) == (7, 2)


def test_errors_say_what_to_type(images, labels):
    with pytest.raises(ValueError, match=r"metric\.metrics\.rfd\.detector"):
        MetricSuite({"pixels": Flatten()}, {"rfd": RelativeFrechetDistance("pixel", "rfd")})
    twice = {
        "a": RelativeFrechetDistance("pixels", "rfd"),
        "b": RelativeFrechetDistance("pixels", "rfd"),
    }
    suite = MetricSuite({"pixels": Flatten()}, twice)
    suite.fit(images, labels, images, labels)
    with pytest.raises(ValueError, match=r"metric\.metrics\.b\.prefix=b_"):
        suite.floor()
    with pytest.raises(ValueError, match="no samples"):
        suite.evaluate([])
    twice["b"] = RelativeFrechetDistance("pixels", "rfd", prefix="b_")
    suite = MetricSuite({"pixels": Flatten()}, twice)
    suite.fit(images, labels, images, labels)
    assert list(suite.floor()) == ["b_rfd", "rfd"]


def test_class_gaussian_has_the_moments_of_each_class():
    draws = torch.Generator().manual_seed(0)
    train = (128 + 20 * torch.randn(200, 1, 2, 2, generator=draws).cumsum(-1)).byte()
    labels = torch.arange(200) % 2 * 5
    samples, asked = class_gaussian(train, labels, 4000)
    assert samples.dtype == torch.uint8
    assert asked.unique(return_counts=True)[1].tolist() == [2000, 2000]
    for label in (0, 5):
        real, fake = (
            x.double().flatten(1) for x in (train[labels == label], samples[asked == label])
        )
        torch.testing.assert_close(fake.mean(0), real.mean(0), atol=2.5, rtol=0)
        torch.testing.assert_close(fake.T.cov(), real.T.cov(), atol=80, rtol=0.1)
    assert torch.equal(class_gaussian(train, labels, 4000)[0], samples)


def test_digits_a_gaussian_fools_the_classifier_and_not_rfd(tmp_path):
    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[:, None]
    train, test, train_labels, test_labels = map(
        torch.as_tensor,
        train_test_split(
            images, digits.target, train_size=1347, stratify=digits.target, random_state=0
        ),
    )
    suite = image_suite()
    suite.detectors["logits"] = ClassifierLogits(10, tmp_path, num_epochs=3)
    suite.metrics["accuracy"] = ClassAccuracy("logits")
    suite.fit(train, train_labels, test, test_labels)
    floor = suite.floor()
    gaussian = suite.evaluate([class_gaussian(train, train_labels, 2000)])
    assert floor["accuracy"] > 0.9 < gaussian["accuracy"]
    assert 1 < floor["rfd"] < 3.5
    assert gaussian["rfd"] > 4 * floor["rfd"]
    assert floor["recall"] == pytest.approx(0.91, abs=0.03)
    assert gaussian["recall"] == pytest.approx(0.7, abs=0.05)
    assert gaussian["precision"] == pytest.approx(0.77, abs=0.05)
