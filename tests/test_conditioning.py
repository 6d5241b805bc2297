"""Conditions: labels to one-hot rows, their unconditional twin, and their rows."""

import torch
from torch.nn.functional import one_hot

from dmd2.diffusion.conditioning import ClassLabels, Unconditional, drop, join


def test_labels_are_one_hot_rows():
    labels = torch.tensor([2, 0, 4])
    assert torch.equal(ClassLabels(5)(labels)["label"], one_hot(labels, 5).float())


def test_the_twin_says_no_class():
    conditioner = ClassLabels(3)
    cond = conditioner(torch.tensor([0, 2]))
    assert conditioner.null(cond)["label"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert cond["label"].sum() == 2


def test_join_is_row_after_row():
    conditioner = ClassLabels(3)
    first, second = conditioner(torch.tensor([0, 1])), conditioner(torch.tensor([2]))
    assert torch.equal(join(first, second)["label"], torch.eye(3))


def test_drop_replaces_the_dropped_rows():
    conditioner = ClassLabels(3)
    cond = conditioner(torch.arange(3))
    found = drop(cond, conditioner.null(cond), torch.tensor([False, True, False]))
    assert found["label"].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_no_condition_is_empty_everywhere():
    conditioner = Unconditional()
    cond = conditioner(torch.zeros(4, dtype=torch.long))
    assert (
        cond
        == conditioner.null(cond)
        == join(cond, cond)
        == drop(cond, cond, torch.ones(4).bool())
        == {}
    )
