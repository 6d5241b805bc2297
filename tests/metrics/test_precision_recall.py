"""Precision, recall and nearest neighbours: brute force, parity with torch-fidelity, and the
extremes.
"""

import numpy as np
import pytest
import torch

from dmd2.metrics import precision_recall
from dmd2.metrics.precision_recall import NearestTrain, PrecisionRecall

NO_LABELS = torch.zeros(0)


def measure(metric, real, *fakes, test=None):
    return values(fed(metric, real, *fakes, test=test))


def fed(metric, real, *fakes, test=None):
    metric.set_reference(real, real if test is None else test)
    for fake in fakes:
        metric.update(fake, NO_LABELS)
    return metric


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def brute_force(real, fake, k):
    def share(points, centres):
        inside = 0
        for point in points:
            for i, centre in enumerate(centres):
                others = np.delete(centres, i, 0)
                radius = np.sort(np.linalg.norm(others - centre, axis=1))[k - 1]
                if np.linalg.norm(point - centre) <= radius:
                    inside += 1
                    break
        return inside / len(points)

    return {"precision": share(fake, real), "recall": share(real, fake)}


@pytest.mark.parametrize("k", [1, 3])
def test_brute_force(features, k):
    real, fake = features[0][:60], features[1][:40]
    expected = brute_force(real.double().numpy(), fake.double().numpy(), k)
    assert 0 < expected["precision"] < 1
    assert measure(PrecisionRecall("d", k), real, fake) == pytest.approx(expected)


def test_torch_fidelity_agrees(features):
    prc = pytest.importorskip(
        "torch_fidelity.metric_prc", reason="torch-fidelity is not installed (extra: eval)"
    )
    real, fake = features
    theirs = prc.prc_features_to_metric(
        fake.double(),
        real.double(),
        prc_neighborhood=3,
        prc_batch_size=64,
        save_cpu_ram=False,
        verbose=False,
    )
    ours = measure(PrecisionRecall("d"), real, fake)
    assert ours == pytest.approx({name: theirs[name] for name in ours})


def test_the_same_set_has_all_and_a_collapsed_one_no_recall(features):
    real, _ = features
    assert measure(PrecisionRecall("d"), real, real) == {"precision": 1, "recall": 1}
    collapsed = real[:1] + 1e-4 * torch.randn(50, 6)
    extremes = measure(PrecisionRecall("d"), real, collapsed)
    assert extremes["precision"] == 1
    assert extremes["recall"] <= 1 / len(real)


def test_blocks_bound_the_memory_and_not_the_value(features, monkeypatch):
    real, fake = features
    whole = measure(PrecisionRecall("d"), real, fake), measure(NearestTrain("d"), real, fake)
    monkeypatch.setattr(precision_recall, "MAX_ENTRIES", 1000)
    assert max(len(block) for block in precision_recall.distance_blocks(fake, real)) == 5
    assert (
        measure(PrecisionRecall("d"), real, fake),
        measure(NearestTrain("d"), real, fake),
    ) == whole


@pytest.mark.parametrize("make", [PrecisionRecall, NearestTrain])
def test_halves_merge_into_the_whole(features, make):
    real, fake = features
    first = fed(make("d"), real, fake[:70], test=fake)
    first.merge_state(fed(make("d"), real, fake[70:], test=fake))
    assert values(first) == pytest.approx(measure(make("d"), real, fake, test=fake), rel=1e-12)


def test_too_few_samples_for_k(features):
    with pytest.raises(ValueError, match="more than 3 samples"):
        measure(PrecisionRecall("d"), features[0], features[1][:3])


def test_copies_are_near_and_held_out_samples_are_not():
    draws = torch.Generator().manual_seed(0)
    train, test, new = torch.randn(3, 400, 4, generator=draws)
    copied = measure(NearestTrain("d"), train, train + 1e-5, test=test)
    assert copied["near_copies"] == 1
    assert copied["nearest_train"] == pytest.approx(
        2e-5, rel=0.05
    )  # |(1e-5, ...)| in four dimensions
    held_out = measure(NearestTrain("d"), train, test, test=test)
    assert held_out["near_copies"] == pytest.approx(0.05)
    assert measure(NearestTrain("d"), train, new, test=test)["near_copies"] < 0.1
    assert held_out["nearest_train"] == pytest.approx(
        torch.cdist(test, train).amin(1).mean().item(), rel=1e-4
    )
