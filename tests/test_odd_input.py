"""What is odd and not wrong is said once, with its numbers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dmd2.runs.requirements import check_batch, check_fit


def data_of(num: int, batch_size: int, num_classes: int = 0) -> Any:
    return SimpleNamespace(
        train=range(num), batch_size=batch_size, num_classes=num_classes, shape=(2,)
    )


@pytest.mark.parametrize(("num", "batch", "devices"), [(1347, 5000, 1), (10, 6, 2), (3, 4, 1)])
def test_a_batch_larger_than_the_data_is_said(
    num: int, batch: int, devices: int, capsys: pytest.CaptureFixture[str]
) -> None:
    check_batch(data_of(num, batch), devices)
    line = capsys.readouterr().err
    assert f"{batch * devices:,}" in line and f"{num:,}" in line and line.count("\n") == 1


@pytest.mark.parametrize(("num", "batch", "devices"), [(10, 10, 1), (10, 5, 2), (1347, 64, 8)])
def test_a_batch_that_the_data_fills_is_no_matter(
    num: int, batch: int, devices: int, capsys: pytest.CaptureFixture[str]
) -> None:
    check_batch(data_of(num, batch), devices)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("shown", "known"), [(2, 10), (1, 3), (10, 10), (0, 0)])
def test_fewer_classes_than_the_teacher_s_are_said(
    shown: int, known: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def conditioner(labels: Tensor) -> Tensor:
        return torch.zeros(len(labels))

    def denoiser(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return x

    conditioner.num_classes = known  # type: ignore[attr-defined]
    check_fit(denoiser, conditioner, data_of(5, 1, shown))  # type: ignore[arg-type]
    line = capsys.readouterr().err
    assert bool(line) == (shown < known)
    assert not line or (f"{shown} classes" in line and str(known) in line)
