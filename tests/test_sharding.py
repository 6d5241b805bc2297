"""FSDP2 on two ranks: what they compute, hold and send, and how a sharded run resumes."""

import json
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import pytest
import torch
from hydra import initialize_config_dir
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dmd2.config.check import of_train
from dmd2.config.folder import config_folder
from dmd2.data.base import DataModule
from dmd2.distributed import process_group
from dmd2.distributed.fsdp import blocks_of, unsharded
from dmd2.runs.assemble import assemble
from dmd2.runs.build import build
from dmd2.runs.compiled import compile_networks
from dmd2.training.checkpoints import load
from dmd2.training.module import DMD
from dmd2.training.strategies import ShardedStrategy
from lives import complete, lives
from processes import FLOAT, NETWORKS, counted, found_by, train_in_all_ranks
from test_module import Record, fit, module, objective, toy, weights
from test_process_group import RUN, TWO, BadOnRank1, ended, started, train

DIFFUSERS = find_spec("diffusers") is not None and find_spec("transformers") is not None
ACCUMULATED = {"accumulate": 2, "critic_updates": 5, "ema": [0.9]}
PLAIN = {"teacher": False, "recompute": False, "block": 1100}


def captioned(folder: Path, batch_size: int) -> tuple[DMD, DataModule]:
    """A U-Net of diffusers as `trainer=fsdp` builds it, untrained, and captioned digits."""
    own = [
        f"paths.cache={folder}",
        f"paths.run={folder}",
        f"data.batch_size={batch_size}",
        "critic_updates=2",
        "loss=dmd2_paper",  # of a view the generator's turn reads features alone
    ]
    own += [
        f"+optimizer.{network}.eps=1e-4" for network in NETWORKS
    ]  # a gradient that is a rounded zero moves nothing
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        on_cpu = ["trainer.accelerator=cpu", f"trainer.devices={process_group.world_size()}"]
        config = of_train(["experiment=text2digits_dmd2", "trainer=fsdp", *on_cpu, *own])
    parts = assemble(config, build(config["metric"]))
    return parts.module, parts.data


def held(network: nn.Module) -> int:
    """How many of a network's parameters this rank holds."""
    return sum(
        p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in network.parameters()
    )


def local(network: nn.Module) -> Tensor:
    """This rank's shards of a network, copied."""
    return torch.cat([p.detach().to_local().flatten() for p in network.parameters()])


def networks(dmd: DMD) -> dict[str, Tensor]:
    """Both networks' weights, which rank 0 has unsharded at the end."""
    return (
        {network: weights(getattr(dmd, network)) for network in NETWORKS}
        if process_group.rank() == 0
        else {}
    )


def moments(optimizer: Any) -> list[Tensor]:
    """An optimizer's averages of gradients."""
    return [state["exp_avg"] for state in optimizer.state.values()]


class Held(L.Callback):
    """What this rank holds at the end of networks and optimizers, the average, a block's passes."""

    num_passes = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DMD)
        pl_module.generator.model.dec[0].up.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.num_passes += 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DMD)
        networks = {
            **{p: getattr(pl_module, p) for p in NETWORKS},
            "ema": pl_module.ema,
            "teacher": pl_module.models.teacher,
        }
        self.elements = {name: held(network) for name, network in networks.items()}
        self.elements["optimizers"] = sum(
            m.to_local().numel() for o in trainer.optimizers for m in moments(o)
        )
        sharded = next(iter(pl_module.generator.parameters()))
        assert isinstance(sharded, DTensor)
        self.waits = [
            group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
            for group in sharded.device_mesh.get_all_groups()
        ]
        (average,) = pl_module.ema.models
        with unsharded(average):
            self.average = weights(average)


def as_rank() -> dict[str, Any]:
    """All that two ranks do here, in one pair of processes."""
    found: dict[str, Any] = {}
    for name, options, chosen in (
        ("plain", {"critic_updates": 5, "ema": [0.9]}, PLAIN),
        ("accumulated", ACCUMULATED, PLAIN),
        ("all", ACCUMULATED, {"teacher": True, "recompute": True, "block": 1100}),
    ):
        watch = Held()
        with counted() as calls:
            sent = Record(lambda m, calls=calls: len(calls))
            dmd = train_in_all_ranks(module(**options), 10, ShardedStrategy(**chosen), watch, sent)
        found[name] = {"elements": watch.elements, "average": watch.average, "logs": dict(dmd.logs)}
        found[name] |= {"passes": watch.num_passes, "calls": calls, "sent": sent.values} | networks(
            dmd
        )
        if process_group.rank() == 0:
            found[name]["concluded"] = weights(dmd.ema.models[0]), weights(dmd.models.teacher)
    loss = objective()
    loss.critic["denoising"] = BadOnRank1(loss.critic["denoising"])
    bad, before = module(loss, log_every=1), Record(lambda m: local(m.critic))
    with pytest.raises(FloatingPointError) as error:
        train_in_all_ranks(bad, 5, ShardedStrategy(**PLAIN), before)
    found["error"] = str(error.value), *before.values[-2:], local(bad.critic)
    other = module()
    if process_group.rank() == 1:
        nn.init.ones_(next(other.models.teacher.parameters()))
    with pytest.raises(ValueError) as differs:
        train_in_all_ranks(other, 1, ShardedStrategy(**PLAIN))
    found["differs"] = str(differs.value)
    found["bf16"] = in_bf16()
    compiled = module(**ACCUMULATED)
    compile_networks(compiled, "blocks", backend="eager")
    sharded = ShardedStrategy(teacher=True, recompute=True, block=1100)
    found["compiled"] = networks(train_in_all_ranks(compiled, 10, sharded))
    if DIFFUSERS:
        found["captioned"] = in_text()
    found["nodes"] = on_two_nodes()
    return found


def in_text() -> dict[str, Any]:
    """Five iterations of a diffusers U-Net: whether this rank began on the meta device, the end."""
    with TemporaryDirectory() as folder:
        dmd, data = captioned(Path(folder), 8)
        without = {
            p.is_meta for x in (dmd.generator, dmd.critic.denoiser, dmd.ema) for p in x.parameters()
        }
        train_in_all_ranks(
            dmd, 5, ShardedStrategy(**PLAIN | {"recompute": True, "block": 50_000}), data=data
        )
    return {"without": [*without], "logs": dict(dmd.logs)} | networks(dmd)


def in_bf16() -> dict[str, Any]:
    """Ten iterations in bf16: what a layer computes with, what is kept, and the end."""
    dtypes: set[torch.dtype] = set()

    def see(layer: Any, *_: Any) -> None:
        dtypes.add(layer.weight.dtype)

    dmd = module(critic_updates=5, ema=[0.9])
    dmd.generator.model.dec[0].up.register_forward_hook(see)
    kept = Record(
        lambda m: (
            {p.dtype for p in m.parameters()}
            | {x.dtype for o in m.optimizers() for x in moments(o)}
        )
    )
    train_in_all_ranks(dmd, 10, ShardedStrategy(**PLAIN), kept, precision="bf16-mixed")
    return {"computed": [*dtypes], "kept": [*kept.values[-1]], "logs": dict(dmd.logs)} | networks(
        dmd
    )


def on_two_nodes() -> dict[str, Any]:
    """What half of the ranks being another node ends with."""
    per_node = process_group.world_size() // 2
    os.environ |= {
        "NODE_RANK": str(process_group.rank() // per_node),
        "LOCAL_RANK": str(process_group.rank() % per_node),
    }
    watch, strategy = Held(), ShardedStrategy(**PLAIN | {"block": 0}, timeout_minutes=7)
    dmd = train_in_all_ranks(module(**ACCUMULATED), 10, strategy, watch, num_nodes=2)
    return {"elements": watch.elements, "waits": watch.waits} | networks(dmd)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What either rank found."""
    return found_by(as_rank, tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("name, accumulate", [("plain", 1), ("accumulated", 2)])
def test_two_ranks_of_shards_are_one_rank_with_twice_the_batch(
    pair: list[dict[str, Any]], name: str, accumulate: int
) -> None:
    alone = fit(
        module(accumulate=accumulate, critic_updates=5, ema=[0.9]), 10, data=toy(batch_size=16)
    )
    for network in NETWORKS:
        torch.testing.assert_close(
            pair[0][name][network], weights(getattr(alone, network)), rtol=1e-4, atol=1e-5
        )
    average = weights(alone.ema.models[0])
    for found in pair:
        torch.testing.assert_close(found[name]["average"], average, rtol=1e-4, atol=1e-5)
        for key, value in found[name]["logs"].items():
            if re.search(r"/loss_|accuracy_(real|fake)|gradient_norm", key):
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
    assert (
        pair[0]["nodes"]["elements"]["critic"] == size["critic"]
    )  # one device a node has its node's all


def test_a_sharded_teacher_and_activation_checkpointing_change_nothing(
    pair: list[dict[str, Any]],
) -> None:
    first, second = pair[0]["accumulated"], pair[0]["all"]
    for key in (*NETWORKS, "average"):
        assert torch.equal(first[key], second[key])
    assert (first["passes"], second["passes"]) == (
        20,
        24,
    )  # two generator turns, each with two shares of the batch
    for average, teacher in (first["concluded"], second["concluded"]):
        assert torch.equal(average, first["average"]) and torch.equal(
            teacher, weights(module().models.teacher)
        )


def test_compiled_blocks_of_shards_compute_the_same(pair: list[dict[str, Any]]) -> None:
    for network in NETWORKS:
        torch.testing.assert_close(
            pair[0]["compiled"][network], pair[0]["all"][network], rtol=1e-5, atol=1e-6
        )


def test_replicas_on_nodes_compute_the_same(pair: list[dict[str, Any]]) -> None:
    for network in NETWORKS:
        torch.testing.assert_close(
            pair[0]["nodes"][network], pair[0]["accumulated"][network], rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_two_nodes_of_two_ranks_are_one_rank_with_four_times_the_batch(tmp_path: Path) -> None:
    four = found_by(on_two_nodes, tmp_path, 4)
    alone = fit(module(**ACCUMULATED), 10, data=toy(batch_size=32))
    for network in NETWORKS:
        torch.testing.assert_close(
            four[0][network], weights(getattr(alone, network)), rtol=1e-4, atol=1e-5
        )
        size = held(getattr(alone, network))
        assert sum(found["elements"][network] for found in four) == 2 * size
        assert max(found["elements"][network] for found in four) < 0.52 * size
    assert [found["waits"] for found in four] == [[420.0, 420.0]] * 4


def test_bf16_computes_in_shards_of_float32(pair: list[dict[str, Any]]) -> None:
    for found in (found["bf16"] for found in pair):
        assert found["computed"] == [torch.bfloat16] and found["kept"] == [torch.float32]
        assert all(
            x.isfinite()
            for name, x in found["logs"].items()
            if "/loss_" in name or "gradient_norm" in name
        )
    begun = module()
    for network in NETWORKS:
        start, exact, found = (
            weights(getattr(begun, network)),
            pair[0]["plain"][network],
            pair[0]["bf16"][network],
        )
        assert 0 < (found - exact).norm() < 0.1 * (exact - start).norm()


@pytest.mark.skipif(
    not DIFFUSERS, reason="diffusers or transformers is not installed: pip install '.[text]'"
)
def test_a_diffusers_network_with_meta_copies_is_one_rank_with_twice_the_batch(
    pair: list[dict[str, Any]], tmp_path: Path
) -> None:
    alone, data = captioned(tmp_path, 16)
    fit(alone, 5, data=data)
    first, second = (found["captioned"] for found in pair)
    assert first["without"] == [False] and second["without"] == [True]
    for network in NETWORKS:
        torch.testing.assert_close(
            first[network], weights(getattr(alone, network)), rtol=1e-4, atol=1e-5
        )
    for key, value in second["logs"].items():
        if re.search(r"/loss_|accuracy_(real|fake)|gradient_norm", key):
            torch.testing.assert_close(value, alone.logs[key], rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    "name, num_shares, is_teacher_sharded", [("plain", 1, 0), ("accumulated", 2, 0), ("all", 2, 1)]
)
def test_gradients_are_scattered_of_the_updated_network_and_weights_gathered_of_those_that_run(
    pair: list[dict[str, Any]], name: str, num_shares: int, is_teacher_sharded: int
) -> None:
    model, taps = module().generator.model, module().generator.taps
    size, blocks = FLOAT * held(model), list(blocks_of(model, PLAIN["block"], taps))
    inner, encoder = (
        FLOAT * sum(map(held, x)) for x in (blocks, [x for x in blocks if x in [*model.enc]])
    )
    rest, head = (
        size - inner,
        1352,
    )  # a head of 1284 bytes, one of whose rows has no other rank to go to
    in_vain = FLOAT * held(
        blocks[-1]
    )  # FSDP2 fetches what ran last, and the decoder has no part in this graph
    # What lies in no block is gathered for `encode` and for `decode`, in the network that the head
    # reads for both.
    sampled, gan_views, trained = size + rest, size + head + encoder + in_vain, 2 * size + head
    for i in range(10):
        calls = pair[0][name]["calls"][slice(*pair[0][name]["sent"][i : i + 2])]
        sums = {
            kind: sum(sent for what, sent in calls if what == kind)
            for kind in ("all_gather", "reduce_scatter")
        }
        gathered, scattered = sampled + trained, size + head
        if i % 5 == 0:
            gathered, scattered = (
                gathered + sampled + gan_views + is_teacher_sharded * sampled,
                scattered + size,
            )
        assert sums == {
            "all_gather": num_shares * gathered,
            "reduce_scatter": num_shares * scattered,
        }, i
        numbers = [sent for what, sent in calls if what == "all_reduce"]
        assert len(numbers) == (1 if i % 5 else 2) and max(numbers) < 200


def test_what_is_not_finite_on_one_rank_is_skipped_and_named_by_all(
    pair: list[dict[str, Any]],
) -> None:
    for text, first, second, after in (found["error"] for found in pair):
        assert text == pair[0]["error"][0] and "iteration 3: critic/loss_denoising" in text
        assert torch.equal(second, after) and not torch.equal(first, second)


def test_ranks_that_would_start_differently_are_named(pair: list[dict[str, Any]]) -> None:
    assert all("rank 1 of 2 starts with other weights" in found["differs"] for found in pair)


@pytest.mark.slow
@pytest.mark.timeout(1500)  # of three runs, on machines that may be busy
def test_a_run_goes_on_bit_by_bit_and_on_any_number_of_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    fsdp = ["trainer=fsdp", "trainer.strategy.teacher=true", *TWO[1:]]
    code, text = ended(started("paths.run=whole", *fsdp), 600)
    assert code == 0, text
    words = ["paths.run=forked", "resume=whole/checkpoints/00000020.ckpt", *fsdp]
    complete(lives(Path("forked.txt"), 2, "train", *RUN, *words), 600)
    train(
        "paths.run=alone",
        "data.batch_size=16",
        "resume=whole/checkpoints/00000020.ckpt",
        "resume_allow=[world_size,data.batch_size]",
    )
    ends = {
        run: load(Path(run, "checkpoints", "00000040.ckpt")) for run in ("whole", "forked", "alone")
    }
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(ends["forked"][part], ends["whole"][part], rtol=0, atol=0)
    torch.testing.assert_close(
        ends["alone"]["state_dict"], ends["whole"]["state_dict"], rtol=1e-3, atol=1e-4
    )
    summaries = [json.loads(Path(run, "summary.json").read_text()) for run in ("whole", "forked")]
    assert (
        summaries[0]["students"] == summaries[1]["students"]
        and summaries[0]["status"] == "completed"
    )
    files = [
        {str(path.relative_to(run)) for path in Path(run).rglob("*")} for run in ("forked", "alone")
    ]
    assert files[0] == files[1]
    student = load_file("whole/checkpoints/student.safetensors")
    prefix = "ema.models.0."
    expected = {
        k.removeprefix(prefix): v
        for k, v in ends["whole"]["state_dict"].items()
        if k.startswith(prefix)
    }
    torch.testing.assert_close(student, expected, rtol=0, atol=0)
