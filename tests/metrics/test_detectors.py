"""Detectors: ranges, principal components of the train split, repeatability, and the classifier's
cache.
"""

import pytest
import torch
from torch import nn

from dmd2.metrics.accuracy import ClassAccuracy
from dmd2.metrics.classifier import Classifier, ClassifierLogits
from dmd2.metrics.detectors import Flatten, RandomConvolutions


def test_flatten_scales_images_and_leaves_toys():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    assert Flatten()(images).tolist() == [[-1, 1]]
    toys = torch.randn(5, 2)
    assert torch.equal(Flatten()(toys), toys)


def test_random_convolutions_are_principal_components_of_the_train_split(images, labels):
    detector = RandomConvolutions(seed=0, components=10)
    detector.fit(images, labels)
    features = detector(images)
    assert features.shape == (120, 10)
    assert features.dtype == torch.float32
    covariance = features.T.double().cov()
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-3, rtol=0)
    assert features.mean(0).abs().max() < 1e-3
    raw = detector.responses(images)
    assert raw.shape == (120, 576)
    std = raw.std(0)
    kept = (
        std / std.clamp_min(0.1 * std.median())
    ) ** 2  # a response that is hardly ever on counts for less
    whole = RandomConvolutions(
        seed=0, components=576
    )  # all components keep all the standardised variance
    whole.fit(images, labels)
    assert whole(images).T.cov().trace().item() == pytest.approx(kept.sum().item(), rel=1e-3)


def test_random_convolutions_are_what_the_seed_says(images, labels):
    def fitted(seed, samples=images):
        detector = RandomConvolutions(seed)
        detector.fit(samples, labels)
        return detector

    torch.manual_seed(7)
    assert torch.equal(fitted(0)(images), fitted(0)(images))
    weight = fitted(0).convolutions[1].weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(48), atol=1e-4, rtol=0)
    assert not torch.allclose(weight, fitted(1).convolutions[1].weight.flatten(1))
    colour = images.expand(-1, 3, -1, -1)
    assert fitted(0, colour)(colour).shape == (120, 48)


def test_detectors_ignore_batches_autocast_and_train_mode(images, labels):
    detector = RandomConvolutions(0)
    detector.fit(images, labels)
    whole = detector(images)
    parts = torch.cat([detector(batch) for batch in images.split(7)])
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    owner = nn.ModuleList([detector]).train()
    assert not any(module.training for module in owner[0].modules())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(detector(images), whole)
    assert not whole.requires_grad


@pytest.fixture
def halves():
    """Images of two classes, bright above or bright below, uint8 [80, 1, 8, 8], and their
    labels.
    """
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    images = torch.randint(0, 100, (80, 1, 8, 8), generator=draws)
    images[labels == 0, :, :4] += 100
    images[labels == 1, :, 4:] += 100
    return images.byte(), labels


def test_classifier_learns_and_its_cache_gives_the_same_net(halves, tmp_path):
    images, labels = halves
    settings = {
        "num_classes": 2,
        "cache": tmp_path,
        "num_epochs": 8,
        "batch_size": 20,
        "channels": 4,
    }
    first, second = Classifier(**settings), ClassifierLogits(**settings)
    first.fit(images, labels)
    (path,) = tmp_path.glob("[!.]*")
    written = path.stat().st_mtime_ns
    second.fit(images, labels)
    assert path.stat().st_mtime_ns == written
    assert first(images).shape == (80, 64)
    assert torch.equal(second(images), first.logits(images))
    assert not any(parameter.requires_grad for parameter in first.parameters())
    accuracy = ClassAccuracy("logits")
    accuracy.set_reference(second(images), second(images))
    accuracy.update(second(images), labels)
    assert accuracy.compute()["accuracy"] > 0.95
    path.unlink()
    again = Classifier(**settings)
    again.fit(images, labels)
    assert torch.equal(again(images), first(images))


def test_classifier_of_other_data_or_settings_is_another_file(halves, tmp_path):
    images, labels = halves
    settings = {"num_classes": 2, "cache": tmp_path, "num_epochs": 1, "channels": 4}
    Classifier(**settings).fit(images, labels)
    Classifier(**settings).fit(images[:70], labels[:70])
    Classifier(**settings, seed=1).fit(images, labels)
    assert len(list(tmp_path.glob("classifier-*.safetensors"))) == 3


def test_classifier_names_the_classes_it_lacks(halves, tmp_path):
    images, labels = halves
    with pytest.raises(ValueError, match="set num_classes=6"):
        Classifier(2, tmp_path).fit(images, labels + 4)


def test_accuracy_counts():
    metric = ClassAccuracy("logits")
    metric.set_reference(torch.eye(4), torch.eye(4))
    metric.update(torch.eye(4), torch.tensor([0, 1, 0, 0]))
    metric.update(torch.eye(4)[:1], torch.tensor([0]))
    assert metric.compute()["accuracy"].item() == pytest.approx(3 / 5)
