"""Two ranks on gloo: what they compute, what they all-reduce, how they start, and how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from dmd2.cli.main import main
from dmd2.cli.processes import in_all_processes
from dmd2.distributed import environment, gradients, process_group
from dmd2.distributed.gradients import MeanOverRanks, buckets
from dmd2.losses.term import Logs
from dmd2.losses.turns import Turn
from dmd2.randomness import seeded
from dmd2.training.callbacks.csv_logger import read_rows
from dmd2.training.checkpoints import load, newest
from dmd2.training.module import DMD
from dmd2.training.strategies import ReplicatedStrategy
from lives import complete, lives
from processes import FLOAT, NETWORKS, counted, found_by, train_in_all_ranks
from test_module import Record, fit, module, moments, objective, toy, weights


def state(dmd: DMD) -> dict[str, Any]:
    return {
        "generator": weights(dmd.generator),
        "critic": weights(dmd.critic),
        "logs": dict(dmd.logs),
        "moments": moments(dmd),
    }


class BadOnRank1:
    """A critic's term whose loss is not finite on rank 1 in the third iteration.

    Its gradient stays finite.
    """

    def __init__(self, term: Any) -> None:
        self.term, self.weight, self.view, self.needs = term, term.weight, term.view, term.needs

    def __call__(self, turn: Turn) -> tuple[Tensor, Logs]:
        loss, logs = self.term(turn)
        bad = process_group.rank() == 1 and turn.draws.iteration == 2
        return (loss + torch.tensor(float("inf")) if bad else loss), logs


def as_rank() -> dict[str, Any]:
    """All that two ranks do here, in one pair of processes."""
    found: dict[str, Any] = {}
    for accumulate in (1, 2):
        with counted() as calls:
            sent = Record(lambda m, calls=calls: len(calls))
            dmd = train_in_all_ranks(
                module(accumulate=accumulate, critic_updates=5), 10, ReplicatedStrategy(), sent
            )
        found[f"accumulate{accumulate}"] = state(dmd) | {"calls": calls, "sent": sent.values}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "BUCKET_BYTES", 72 * FLOAT)
        found["buckets"] = {name: sent_in_buckets(name == "unused") for name in ("used", "unused")}
        with counted() as calls:
            dmd = train_in_all_ranks(
                module(accumulate=2, critic_updates=5), 10, ReplicatedStrategy()
            )
        found["many"] = state(dmd) | {"calls": calls}
    loss = objective()
    loss.critic["denoising"] = BadOnRank1(loss.critic["denoising"])
    before = Record(lambda m: weights(m.critic))
    bad = module(loss, log_every=1)
    with pytest.raises(FloatingPointError) as error:
        train_in_all_ranks(bad, 5, ReplicatedStrategy(), before)
    found["error"] = str(error.value), before.values[-1], weights(bad.critic)
    other = module()
    if process_group.rank() == 1:
        nn.init.ones_(next(other.critic.parameters()))
    with pytest.raises(ValueError) as differs:
        train_in_all_ranks(other, 1, ReplicatedStrategy())
    found["differs"] = str(differs.value)
    found["wire"] = {dtype: sent_as(getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
    found["host"] = (
        process_group.broadcast_from_rank_zero(lambda: process_group.rank()),
        process_group.all_reduce_max(process_group.rank() * 15),
        process_group.is_rank_zero(),
    )
    process_group.destroy_process_group()
    found["started"] = environment.started()
    process_group.init_process_group(on_gpu=False)
    found["again"] = state(
        train_in_all_ranks(module(accumulate=1, critic_updates=5), 10, ReplicatedStrategy())
    )
    return found


def sent_as(dtype: torch.dtype) -> tuple[Tensor, Tensor, list[tuple[str, int]]]:
    """The mean of gradients that were sent so, that of a number, and what was sent."""
    weight = nn.Parameter(torch.zeros(1000))
    weight.grad = torch.randn(1000, generator=torch.Generator().manual_seed(process_group.rank()))
    numbers = {"loss": torch.tensor(0.1 + process_group.rank())}
    with counted() as calls:
        found = MeanOverRanks([weight], dtype).finish(numbers)
    return weight.grad, found["loss"], calls


def sent_in_buckets(unused: bool) -> dict[str, Any]:
    """The mean gradients of four layers in buckets of one, and what was sent until when.

    unused  Whether a further layer has weights that get no gradient.
    """
    with seeded(0, "layers"):
        layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
        x = torch.randn(2, 5, 8)
    network = nn.Sequential(layers, nn.Linear(8, 8)) if unused else layers
    means = MeanOverRanks(network.parameters())
    with counted() as calls:
        with means.sending():
            layers(x[process_group.rank()]).square().mean().backward()
        early = list(calls)
        means.finish({"loss": torch.tensor(0.5)})
    sent = [p.grad.clone() for p in layers.parameters() if p.grad is not None]
    layers.zero_grad()
    layers(x).square().mean().backward()  # of all ranks' samples
    whole = [p.grad for p in layers.parameters()]
    return {"early": early, "calls": calls, "sent": sent, "whole": whole}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What either rank found."""
    return found_by(as_rank, tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_are_one_with_twice_the_batch(
    pair: list[dict[str, Any]], accumulate: int
) -> None:
    first, second = (found[f"accumulate{accumulate}"] for found in pair)
    one = state(fit(module(accumulate=accumulate, critic_updates=5), 10, data=toy(batch_size=16)))
    for network in ("generator", "critic"):
        assert torch.equal(first[network], second[network])
        torch.testing.assert_close(first[network], one[network], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first["moments"], one["moments"], rtol=1e-3, atol=1e-5)
    for name, value in first["logs"].items():
        assert torch.equal(value, second["logs"][name]) or value.isnan(), name
        # Means over equal parts of t are of other rows on each rank.
        if re.search(r"/loss_|accuracy_(real|fake)|gradient_norm", name):
            torch.testing.assert_close(value, one["logs"][name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_only_the_updated_networks_gradients_are_sent_once_an_update(
    pair: list[dict[str, Any]], accumulate: int
) -> None:
    dmd = module()
    size = {
        network: FLOAT * sum(p.numel() for p in getattr(dmd, network).parameters())
        for network in NETWORKS
    }
    found = pair[0][f"accumulate{accumulate}"]
    # What is computed from the mean gradient no rank sends.
    own = ("gradient_norm", "clipped", "update_to_weights")
    sent = [name for name in found["logs"] if not name.endswith(own)]
    # Of each number a sum, and how many passes had one.
    logs = {
        network: 2 * sum(name.startswith(f"{network}/") for name in sent) for network in NETWORKS
    }
    for i, (start, end) in enumerate(zip(found["sent"], found["sent"][1:], strict=False)):
        turns = NETWORKS if i % 5 == 0 else NETWORKS[1:]
        expected = [("all_reduce", size[network] + FLOAT * logs[network]) for network in turns]
        at_start = [] if i else [("all_gather_object", 0)]  # hashes of the weights
        assert found["calls"][start:end] == at_start + expected, i


def test_buckets_are_sent_while_the_backward_pass_goes_on(pair: list[dict[str, Any]]) -> None:
    layer, last = ("all_reduce", 72 * FLOAT), ("all_reduce", (72 + 1) * FLOAT)
    for found in pair:
        used, unused = found["buckets"]["used"], found["buckets"]["unused"]
        # All but the last, which the number goes with.
        assert used["early"] == [layer] * 3 and used["calls"] == [layer] * 3 + [last]
        # A layer without gradients would come first: whatever waits for it is sent at the end.
        assert unused["early"] == [] and unused["calls"] == used["calls"]
        for one in (used, unused):
            torch.testing.assert_close(one["sent"], one["whole"])


def test_many_buckets_train_to_the_same_weights_and_send_the_same_bytes(
    pair: list[dict[str, Any]],
) -> None:
    for found in pair:
        many, few = found["many"], found["accumulate2"]
        for part in ("generator", "critic", "moments"):
            torch.testing.assert_close(many[part], few[part], rtol=0, atol=0)
        assert len(many["calls"]) > 3 * len(few["calls"])
        assert sum(sent for _, sent in many["calls"]) == sum(sent for _, sent in few["calls"])


def test_gradients_in_bfloat16_are_half_the_bytes_and_off_by_its_rounding(
    pair: list[dict[str, Any]],
) -> None:
    exact, number, calls = pair[0]["wire"]["float32"]
    own = [torch.randn(1000, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    torch.testing.assert_close(exact, (own[0] + own[1]) / 2)
    rounded, same_number, few = pair[0]["wire"]["bfloat16"]
    assert torch.equal(rounded, pair[1]["wire"]["bfloat16"][0]) and torch.equal(number, same_number)
    # Each of three roundings, of two summands and the sum, is off by 2^-8 at most.
    bound = 2**-8 * (own[0].abs() / 2 + own[1].abs() / 2 + 1.01 * exact.abs())
    assert ((rounded - exact).abs() <= bound).all()
    assert 1e-3 < (rounded - exact).norm() / exact.norm() < 4e-3
    assert [sent for _, sent in calls] == [4 * 1001] and [sent for _, sent in few] == [4, 2 * 1000]


def test_what_is_not_finite_on_one_rank_is_skipped_and_named_by_all(
    pair: list[dict[str, Any]],
) -> None:
    for text, before, after in (found["error"] for found in pair):
        assert text == pair[0]["error"][0] and "iteration 3: critic/loss_denoising" in text
        assert torch.equal(before, after) and torch.equal(after, pair[0]["error"][2])


def test_ranks_that_would_start_differently_are_named(pair: list[dict[str, Any]]) -> None:
    assert all("rank 1 of 2 starts with other weights" in found["differs"] for found in pair)


def test_objects_are_broadcast_from_rank_zero_and_numbers_reduced_on_the_host(
    pair: list[dict[str, Any]],
) -> None:
    assert [found["host"] for found in pair] == [(0, 15, True), (0, 15, False)]


def test_a_process_alone_is_rank_zero_of_one() -> None:
    assert process_group.is_rank_zero() and process_group.world_size() == 1


def test_a_process_group_that_was_destroyed_is_initialised_again_for_the_next_run(
    pair: list[dict[str, Any]],
) -> None:
    for found in pair:
        assert found["started"]
        for network in NETWORKS:
            assert torch.equal(found["again"][network], found["accumulate1"][network])


def note_patience(config: dict[str, Any]) -> None:
    """Write down how many seconds this rank waits in a collective."""
    group = distributed.distributed_c10d._get_default_group()
    seconds = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    Path(config["out"], str(process_group.rank())).write_text(str(seconds), encoding="utf-8")


def test_a_config_says_how_long_ranks_wait_for_each_other(tmp_path: Path) -> None:
    strategy = {"timeout_minutes": 7}
    section = {"accelerator": "cpu", "devices": 2, "strategy": strategy}
    in_all_processes({"out": str(tmp_path), "trainer": section}, note_patience)
    assert [(tmp_path / str(i)).read_text(encoding="utf-8") for i in range(2)] == ["420.0"] * 2


def test_buckets_hold_neighbours_up_to_their_size() -> None:
    sizes = [
        [len(x) for x in bucket]
        for bucket in buckets([torch.zeros(n) for n in (2, 3, 9, 1, 1)], 5 * FLOAT)
    ]
    assert sizes == [[2, 3], [9], [1, 1]]


# The command line

RUN = [
    "experiment=toy2d_dmd2",
    "teacher.pretrain.max_iterations=5",
    "teacher.pretrain.data.batch_size=8",
    "max_iterations=40",
    "metric.num_samples=40",
    "metric.batch_size=20",
    "metric.teacher_steps=[1]",
    "callbacks.evaluation.every=20",
    "callbacks.samples.every=40",
    "log_every=4",
    "checkpoint.every=20",
    "+data.num_train=500",
    "+data.num_test=100",
]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=8"]


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        "from dmd2.cli.main import main; main()",
        "train",
        *RUN,
        *arguments,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[int, str]:
    """Exit code and stderr; what does not end is killed, and fails the test."""
    try:
        _, text = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, text


def rank_ids(process: subprocess.Popen[str], ready: Callable[[], Any]) -> list[int]:
    """The process ids of the ranks of a run, as soon as it is `ready`."""
    while not ready() and process.poll() is None:
        time.sleep(0.02)
    own = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may have ended
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                own.append(int(folder.name))
    return sorted(own)


def has_row(run: str) -> Callable[[], Any]:
    """Whether there is a row in the log of a run."""
    return lambda: read_rows(Path(run, "metrics.csv"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of two ranks that nothing disturbed."""
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, text = ended(started("paths.run=two", *TWO), 600)
        assert code == 0, text
    return folder


@pytest.fixture
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", sys.argv)


def train(*arguments: str) -> None:
    sys.argv = ["dmd2", "train", *RUN, *arguments]
    main()


def end_of(run: str) -> dict[str, Any]:
    return load(Path(run, "checkpoints", "00000040.ckpt"))["state_dict"]


def assert_same_end(run: str) -> None:
    """Weights, averages, optimizers and scores are those of the undisturbed run, bit by bit."""
    ends = [load(Path(name, "checkpoints", "00000040.ckpt")) for name in ("two", run)]
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(ends[1][part], ends[0][part], rtol=0, atol=0)
    scores = [
        json.loads(Path(name, "summary.json").read_text())["students"] for name in ("two", run)
    ]
    assert scores[0] == scores[1]


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds ranks in /proc")


@pytest.mark.slow
@pytest.mark.timeout(1500)  # starts of Python, on machines that may be busy
@pytest.mark.usefixtures("inside")
def test_a_run_of_two_ranks_ends_where_one_with_twice_the_batch_does() -> None:
    train("paths.run=one", "data.batch_size=16")
    torch.testing.assert_close(end_of("two"), end_of("one"), rtol=1e-3, atol=1e-4)
    rows = [
        [int(row["step"]) for row in read_rows(Path(run, "metrics.csv"))] for run in ("two", "one")
    ]
    assert rows[0] == rows[1]
    assert json.loads(Path("two/summary.json").read_text())["status"] == "completed"
    assert sorted(path.name for path in Path("two").iterdir()) == sorted(
        path.name for path in Path("one").iterdir()
    )
    with pytest.raises(SystemExit):
        train("paths.run=fewer", "data.batch_size=8", "resume=two/checkpoints/00000020.ckpt")


@pytest.mark.slow
@pytest.mark.timeout(1500)  # starts of Python, on machines that may be busy
@needs_proc
@pytest.mark.usefixtures("inside")
def test_a_signal_to_one_rank_ends_both_and_the_run_goes_on_bit_by_bit() -> None:
    process = started("paths.run=stopped", *TWO)
    os.kill(rank_ids(process, has_row("stopped"))[1], signal.SIGTERM)
    code, text = ended(process, 60)
    assert code == 130, text
    summary = json.loads(Path("stopped/summary.json").read_text())
    assert (
        summary["status"] == "interrupted"
        and summary["iterations"] % 4 == 0
        and summary["iterations"] < 40
    )
    path = newest(Path("stopped/checkpoints")).path
    assert path is not None and int(path.stem) == summary["iterations"]
    words = ["train", *RUN, "paths.run=stopped", "resume=auto", *TWO]
    complete(lives(Path("stopped.txt"), 2, *words), 600)
    assert_same_end("stopped")


@pytest.mark.slow
@pytest.mark.timeout(1500)  # starts of Python, on machines that may be busy
@needs_proc
@pytest.mark.usefixtures("inside")
def test_a_killed_rank_is_named_and_takes_the_others_along() -> None:
    process = started("paths.run=killed", *TWO)
    os.kill(rank_ids(process, has_row("killed"))[1], signal.SIGKILL)
    code, text = ended(process, 60)
    assert code not in (0, 130)
    assert "rank 1 of 2 was killed by SIGKILL" in text
    assert json.loads(Path("killed/summary.json").read_text())["status"] == "failed"


@pytest.mark.slow
@pytest.mark.timeout(1500)  # starts of Python, on machines that may be busy
@needs_proc
@pytest.mark.usefixtures("inside")
def test_a_run_whose_ranks_are_all_killed_goes_on_by_itself_bit_by_bit() -> None:
    own = ["paths.run=lost", "resume=auto", "+data.num_workers=1", *TWO]
    process = started(*own)
    for number in rank_ids(process, Path("lost/checkpoints/00000020.ckpt").exists):
        os.kill(number, signal.SIGKILL)
    code, text = ended(process, 60)
    assert code not in (0, 130) and "was killed by SIGKILL" in text
    assert not Path("lost/summary.json").exists(), "it was too fast to be killed"
    code, text = ended(started(*own), 600)
    assert code == 0, text
    assert_same_end("lost")
