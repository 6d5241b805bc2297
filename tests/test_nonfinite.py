"""The watch over non-finite numbers: who was first, and when."""

import copy
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from dmd2.training.adamw_8bit import adamw_8bit
from dmd2.training.checkpoints import BackgroundIO
from dmd2.training.nonfinite import NonFiniteGuard, skip_step_unless

ONE, NAN, INF = (torch.tensor(x) for x in (1.0, float("nan"), float("inf")))


def test_finite_numbers_pass():
    guard = NonFiniteGuard()
    assert bool(guard.watch({"a": ONE, "b": ONE}, 1))
    guard.check()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_bad_number_makes_the_whole_watch_bad(bad):
    assert not bool(NonFiniteGuard().watch({"a": ONE, "b": bad}, 1))


def test_the_earliest_fault_is_named_and_only_it():
    guard = NonFiniteGuard()
    guard.watch({"critic/a": ONE}, 1)
    guard.watch({"critic/a": NAN}, 7)
    guard.watch({"generator/b": INF, "generator/c": ONE}, 6)
    guard.watch({"generator/b": ONE, "generator/c": NAN}, 8)
    with pytest.raises(
        FloatingPointError, match=r"^iteration 6: generator/b not finite; the step was not applied$"
    ):
        guard.check()


def test_faults_of_one_iteration_are_named_together_and_stay():
    guard = NonFiniteGuard()
    guard.watch({"a": NAN, "b": ONE, "c": INF}, 3)
    guard.watch({"a": ONE, "b": ONE, "c": ONE}, 4)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="iteration 3: a, c not finite"):
            guard.check()


def test_allowed_faults_are_said_and_counted_and_one_more_is_too_many(capsys):
    guard = NonFiniteGuard(allowed=2)
    for iteration, number in enumerate((NAN, ONE, INF), 1):
        guard.watch({"a": number}, iteration)
        guard.check()
    assert guard.skipped == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": a not finite")[0] for line in told] == [
        "dmd2: iteration 1",
        "dmd2: iteration 3",
    ]
    guard.watch({"a": NAN}, 4)
    with pytest.raises(
        FloatingPointError,
        match=r"^iteration 4: a not finite.*\(3 so far, max_skipped_updates=2\)$",
    ):
        guard.check()


def test_a_negative_number_of_faults_is_refused():
    with pytest.raises(ValueError, match="max_skipped_updates must be at least 0, got -1"):
        NonFiniteGuard(-1)


def test_low_precision_numbers_are_watched():
    assert bool(
        NonFiniteGuard().watch({"a": torch.tensor(1.0).bfloat16(), "b": torch.tensor(3)}, 1)
    )


# Steps that are skipped

EIGHT_BIT = pytest.param(
    adamw_8bit,
    marks=pytest.mark.skipif(
        find_spec("torchao") is None, reason="torchao is not installed: pip install '.[low_memory]'"
    ),
)
OPTIMIZERS = [
    *(partial(AdamW, **how) for how in ({"fused": True}, {"foreach": True}, {"foreach": False})),
    *(partial(SGD, momentum=0.9, weight_decay=0.1, fused=fused) for fused in (True, False)),
    partial(Adam, amsgrad=True),
    RMSprop,
    EIGHT_BIT,
]


def stepped(network: nn.Module, optimizer: Optimizer, is_finite: bool = True) -> None:
    # Compiling torchao's step takes minutes on a CPU.
    with torch.compiler.set_stance("force_eager"):
        network(torch.ones(4, 64)).square().mean().backward()
        skip_step_unless(torch.tensor(is_finite), optimizer)
        optimizer.step()
        optimizer.zero_grad()


def values(network: nn.Module, optimizer: Optimizer) -> list[Tensor]:
    """Weights and state; of quantized moments their codes and scales."""
    tensors = [*network.parameters(), *(x for s in optimizer.state.values() for x in s.values())]
    parts = [[getattr(x, name) for name in getattr(x, "tensor_attrs", ())] or [x] for x in tensors]
    return [x.detach() for some in parts for x in some]


def equal(a: list[Tensor], b: list[Tensor]) -> list[bool]:
    return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]


def trained(make: Callable[..., Optimizer], num: int = 3) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64))
    optimizer = make(network.parameters(), lr=1e-3)
    for _ in range(num):
        stepped(network, optimizer)
    return network, optimizer


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_skipped_step_changes_neither_weights_nor_state(make: Callable[..., Optimizer]):
    network, optimizer = trained(make)
    before = copy.deepcopy(values(network, optimizer))
    stepped(network, optimizer, is_finite=False)
    assert all(equal(values(network, optimizer), before))
    stepped(network, optimizer)
    assert not any(equal(values(network, optimizer), before)[:4])


@pytest.mark.parametrize("make", [EIGHT_BIT])
def test_a_quantized_state_is_resumed_from_a_checkpoint_to_the_last_bit(
    make: Callable[..., Optimizer], tmp_path: Path
):
    network, optimizer = trained(make)
    writer = BackgroundIO()
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    writer.save_checkpoint(state, tmp_path / "00000003.ckpt")
    for _ in range(2):  # beside the thread that writes
        stepped(network, optimizer)
    writer.wait()
    read = writer.load_checkpoint(tmp_path / "00000003.ckpt")
    resumed, again = trained(make, 0)
    resumed.load_state_dict(read["network"])
    again.load_state_dict(read["optimizer"])
    for _ in range(2):
        stepped(resumed, again)
    assert all(equal(values(network, optimizer), values(resumed, again)))
    codes: Any = optimizer.state[next(network.parameters())]["exp_avg"]
    assert codes.codes.dtype == torch.uint8


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed")
def test_a_missing_package_is_named_with_what_to_type():
    with pytest.raises(ImportError, match=r"needs torchao; type .*pip install '\.\[low_memory\]'"):
        adamw_8bit([nn.Parameter(torch.zeros(1))])
