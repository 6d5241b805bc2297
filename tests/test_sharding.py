"""Two processes that each hold half of all weights: what they compute, keep and send, and how their run goes on."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dmd2 import ranks
from dmd2.checkpoints import load
from dmd2.errors import one_line
from dmd2.launch import launch
from dmd2.module import DMD
from dmd2.replicas import Ranks, Replicas
from dmd2.sharding import Shards, whole
from test_module import Record, fit, module, objective, toy, weights
from test_ranks import PLAYERS, TWO, BadOnRank1, ended, started, train

ACCUMULATED = {"accumulate": 2, "critic_updates": 5, "ema": [0.9]}
PLAIN = {"teacher": False, "recompute": False, "block": 1100}


def together(dmd: DMD, max_steps: int, strategy: Replicas, *callbacks: L.Callback, num_nodes: int = 1) -> DMD:
    """Train as one of two ranks, at 8 samples a rank."""
    L.Trainer(
        accelerator="cpu", devices=2 // num_nodes, num_nodes=num_nodes, strategy=strategy, plugins=[Ranks()],
        max_steps=max_steps, callbacks=list(callbacks), logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
    ).fit(dmd, datamodule=toy(batch_size=8))  # fmt: skip
    return dmd


def held(network: nn.Module) -> int:
    """How many of a network's parameters this rank holds."""
    return sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in network.parameters())


def local(network: nn.Module) -> Tensor:
    """This rank's shards of a network, copied."""
    return torch.cat([p.detach().to_local().flatten() for p in network.parameters()])


class Held(L.Callback):
    """What this rank holds at the end, of networks and optimizers, and the average; a block's passes on the way."""

    num_passes = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DMD)
        pl_module.generator.model.dec[0].up.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.num_passes += 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DMD)
        networks = {
            **{p: getattr(pl_module, p) for p in PLAYERS},
            "ema": pl_module.ema,
            "teacher": pl_module.models.teacher,
        }
        self.elements = {name: held(network) for name, network in networks.items()}
        moments = [s["exp_avg"] for o in trainer.optimizers for s in o.state.values()]
        self.elements["optimizers"] = sum(m.to_local().numel() for m in moments)
        (average,) = pl_module.ema.models
        with whole(average):
            self.average = weights(average)


def as_rank(folder: Path) -> None:
    """All that two ranks do here, in one pair of processes."""
    torch.set_num_threads(1)
    ranks.join(on_gpu=False)
    found: dict[str, Any] = {}
    for name, options, chosen in (
        ("plain", {"critic_updates": 5, "ema": [0.9]}, PLAIN),
        ("accumulated", ACCUMULATED, PLAIN),
        ("all", ACCUMULATED, {"teacher": True, "recompute": True, "block": 1100}),
    ):
        watch = Held()
        dmd = together(module(**options), 10, Shards(**chosen), watch)
        found[name] = {"elements": watch.elements, "average": watch.average, "logs": dict(dmd.logs)}
        found[name]["passes"] = watch.num_passes
        if ranks.rank() == 0:
            found[name] |= {player: weights(getattr(dmd, player)) for player in PLAYERS}
            found[name]["concluded"] = weights(dmd.ema.models[0]), weights(dmd.models.teacher)
    loss = objective()
    loss.critic["denoising"] = BadOnRank1(loss.critic["denoising"])
    bad, before = module(loss, log_every=1), Record(lambda m: local(m.critic))
    with pytest.raises(FloatingPointError) as fault:
        together(bad, 5, Shards(**PLAIN), before)
    found["fault"] = str(fault.value), *before.values[-2:], local(bad.critic)
    other = module()
    if ranks.rank() == 1:
        nn.init.ones_(next(other.critic.parameters()))
    with pytest.raises(ValueError) as differs:
        together(other, 1, Shards(**PLAIN))
    found["differs"] = str(differs.value)
    os.environ |= {"NODE_RANK": str(ranks.rank()), "LOCAL_RANK": "0"}  # two nodes of one device
    watch = Held()
    dmd = together(module(**ACCUMULATED), 10, Shards(**PLAIN | {"block": 0}), watch, num_nodes=2)
    found["nodes"] = {"elements": watch.elements}
    if ranks.rank() == 0:
        found["nodes"] |= {player: weights(getattr(dmd, player)) for player in PLAYERS}
    torch.save(found, folder / f"{ranks.rank()}.pt")
    ranks.leave()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What either rank found."""
    folder = tmp_path_factory.mktemp("pair")
    launch(as_rank, folder, 2, one_line)
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(2)]


@pytest.mark.parametrize("name, accumulate", [("plain", 1), ("accumulated", 2)])
def test_two_halves_are_one_whole_with_twice_the_batch(
    pair: list[dict[str, Any]], name: str, accumulate: int
) -> None:
    alone = fit(module(accumulate=accumulate, critic_updates=5, ema=[0.9]), 10, data=toy(batch_size=16))
    for player in PLAYERS:
        torch.testing.assert_close(pair[0][name][player], weights(getattr(alone, player)), rtol=1e-4, atol=1e-5)
    average = weights(alone.ema.models[0])
    for found in pair:
        torch.testing.assert_close(found[name]["average"], average, rtol=1e-4, atol=1e-5)
        for key, value in found[name]["logs"].items():
            if "/loss_" in key or "accuracy" in key or "gradient_norm" in key:
                torch.testing.assert_close(value, alone.logs[key], rtol=1e-3, atol=1e-5, msg=key)


def test_a_rank_holds_half(pair: list[dict[str, Any]]) -> None:
    dmd = module(ema=[0.9])
    size = {"generator": held(dmd.generator), "critic": held(dmd.critic), "ema": held(dmd.ema)}
    size |= {"teacher": held(dmd.models.teacher), "optimizers": size["generator"] + size["critic"]}
    for name in ("plain", "all"):
        halves = [found[name]["elements"] for found in pair]
        for part, elements in size.items():
            if part == "teacher" and name == "plain":
                assert [half[part] for half in halves] == [elements] * 2
            else:
                assert sum(half[part] for half in halves) == elements, part
                assert max(half[part] for half in halves) < 0.52 * elements, part
    assert pair[0]["nodes"]["elements"]["critic"] == size["critic"]  # one device a node has its node's all


def test_what_is_cut_and_what_is_computed_again_changes_nothing(pair: list[dict[str, Any]]) -> None:
    first, second = pair[0]["accumulated"], pair[0]["all"]
    for key in (*PLAYERS, "average"):
        assert torch.equal(first[key], second[key])
    assert (first["passes"], second["passes"]) == (20, 24)  # two generator turns, each in two rounds
    for average, teacher in (first["concluded"], second["concluded"]):
        assert torch.equal(average, first["average"]) and torch.equal(teacher, weights(module().models.teacher))


def test_replicas_on_nodes_compute_the_same(pair: list[dict[str, Any]]) -> None:
    for player in PLAYERS:
        torch.testing.assert_close(pair[0]["nodes"][player], pair[0]["accumulated"][player], rtol=1e-4, atol=1e-5)


def test_what_is_not_finite_on_one_rank_is_skipped_and_named_by_all(pair: list[dict[str, Any]]) -> None:
    for text, first, second, after in (found["fault"] for found in pair):
        assert text == pair[0]["fault"][0] and "iteration 3: critic/loss_denoising" in text
        assert torch.equal(second, after) and not torch.equal(first, second)


def test_ranks_that_would_start_differently_are_named(pair: list[dict[str, Any]]) -> None:
    assert all("rank 1 of 2 starts with other weights" in found["differs"] for found in pair)


@pytest.mark.slow
@pytest.mark.timeout(1500)  # four starts of Python a run, on machines that may be busy
def test_a_run_goes_on_bit_by_bit_and_on_any_number_of_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    fsdp = ["trainer=fsdp", "trainer.strategy.teacher=true", *TWO[1:]]
    for arguments in (
        ["paths.run=whole", *fsdp],
        ["paths.run=forked", "resume=whole/checkpoints/00000020.ckpt", *fsdp],
    ):
        code, text = ended(started(*arguments), 600)
        assert code == 0, text
    train("paths.run=alone", "data.batch_size=16", "resume=whole/checkpoints/00000020.ckpt",
          "resume_allow=[world_size,data.batch_size]")  # fmt: skip
    ends = {run: load(Path(run, "checkpoints", "00000040.ckpt")) for run in ("whole", "forked", "alone")}
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(ends["forked"][part], ends["whole"][part], rtol=0, atol=0)
    torch.testing.assert_close(ends["alone"]["state_dict"], ends["whole"]["state_dict"], rtol=1e-3, atol=1e-4)
    summaries = [json.loads(Path(run, "summary.json").read_text()) for run in ("whole", "forked")]
    assert summaries[0]["students"] == summaries[1]["students"] and summaries[0]["status"] == "completed"
    files = [{str(path.relative_to(run)) for path in Path(run).rglob("*")} for run in ("forked", "alone")]
    assert files[0] == files[1]
    student = load_file("whole/checkpoints/student.safetensors")
    prefix = "ema.models.0."
    expected = {k.removeprefix(prefix): v for k, v in ends["whole"]["state_dict"].items() if k.startswith(prefix)}
    torch.testing.assert_close(student, expected, rtol=0, atol=0)
