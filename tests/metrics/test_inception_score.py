"""Inception score: closed forms, and parity with torchmetrics and torch-fidelity on given
logits.
"""

import pytest
import torch
from torch import nn
from torchmetrics.image.inception import InceptionScore as Theirs

from dmd2.metrics.inception_score import InceptionScore

NO_LABELS = torch.zeros(0)


def measure(logits, **settings):
    metric = InceptionScore("d", **settings)
    for batch in logits.split(40):
        metric.update(batch, NO_LABELS)
    return metric.compute()["is"].item()


@pytest.fixture
def logits():
    return 3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))


def test_sharp_and_even_classes_score_their_number_and_blurred_ones_score_one():
    sharp = 1e3 * torch.eye(10).repeat(20, 1)
    assert measure(sharp, num_splits=1) == pytest.approx(10)
    assert measure(torch.zeros(200, 10)) == pytest.approx(1)


def test_log_probabilities_are_logits(logits):
    assert measure(logits.log_softmax(1), num_splits=1) == pytest.approx(
        measure(logits, num_splits=1), rel=1e-6
    )


def test_parts_depend_on_the_seed_and_not_on_the_order(logits):
    assert measure(logits.flip(0)) == measure(logits) != measure(logits, seed=1)


def test_torchmetrics_agrees(logits):
    theirs = Theirs(feature=nn.Identity(), splits=1)
    theirs.update(logits.double())
    assert measure(logits, num_splits=1) == pytest.approx(theirs.compute()[0].item(), rel=1e-9)


def test_torch_fidelity_agrees(logits):
    theirs = pytest.importorskip(
        "torch_fidelity.metric_isc", reason="torch-fidelity is not installed (extra: eval)"
    )
    found = theirs.isc_features_to_metric(logits, splits=1)["inception_score_mean"]
    assert measure(logits, num_splits=1) == pytest.approx(found, rel=1e-9)
