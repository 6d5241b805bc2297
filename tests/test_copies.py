"""How generator and critic come from the teacher is chosen once, by what a strategy is."""

from typing import Any

import pytest
import torch

from dmd2.diffusion import UnscaledDenoiser
from dmd2.diffusion.schedules import VP
from dmd2.nets import MLP
from dmd2.runs import copies
from dmd2.runs.copies import FullCopy, LoRA, MetaCopy, copy_for, wants_shards
from dmd2.training import ReplicatedStrategy, ShardedStrategy

SMALL = {"_target_": "dmd2.nets.adapted", "_partial_": True, "rank": 2, "alpha": 2}


class Renamed(ShardedStrategy):
    """A user's own, whose name says nothing of shards."""


class NoShards(ReplicatedStrategy):
    """Another, whose name ends on the word."""


def config(strategy: type | None = None, lora: bool = False, **keys: Any) -> dict[str, Any]:
    node = {} if strategy is None else {"_target_": f"{strategy.__module__}.{strategy.__name__}"}
    own = {"generator": SMALL | {"targets": ["outer"]} if lora else None, "critic": None}
    files = {"weights": None, "critic_weights": None}
    return {"trainer": {"strategy": node}, "lora": own, "seed": 0, **files, **keys}


def teacher() -> UnscaledDenoiser:
    torch.manual_seed(0)
    model = MLP(2, 16, 2)
    return UnscaledDenoiser(model, VP.scaled_linear(), "eps").requires_grad_(False).eval()


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [(None, False), (ReplicatedStrategy, False), (NoShards, False), (Renamed, True)],
)
def test_a_strategy_is_known_by_its_class(strategy: type | None, expected: bool) -> None:
    assert wants_shards(config(strategy)) == expected


def test_rank_zero_has_the_weights_of_shards_and_the_others_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(copy_for(config(Renamed), "critic"), FullCopy)
    monkeypatch.setattr(copies, "is_rank_zero", lambda: False)
    copy = copy_for(config(Renamed), "critic")
    assert isinstance(copy, MetaCopy) and not copy.has_weights
    network = copy.network(teacher())
    assert all(p.is_meta and p.requires_grad for p in network.parameters())
    assert isinstance(copy_for(config(NoShards), "critic"), FullCopy)


def test_a_full_copy_begins_with_the_teacher_s_weights_unless_a_file_was_named() -> None:
    base = teacher()
    for file, is_teacher_s in ((None, True), ("student.safetensors", False)):
        copy = copy_for(config(weights=file), "generator")
        network = copy.network(base)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1)
        copy.init_from_teacher(network, base)
        pairs = zip(network.parameters(), base.parameters(), strict=True)
        assert all(torch.equal(a, b) == is_teacher_s for a, b in pairs)
        assert all(p.requires_grad for p in network.parameters())


def test_lora_shares_the_teacher_s_tensors_and_cannot_be_sharded() -> None:
    pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")
    base = teacher()
    copy = copy_for(config(lora=True), "generator")
    assert isinstance(copy, LoRA)
    network = copy.network(base)
    shared = {p.data_ptr() for p in base.parameters()}
    trained = [p for p in network.parameters() if p.requires_grad]
    assert trained and all(
        p.data_ptr() in shared for p in network.parameters() if not p.requires_grad
    )
    with pytest.raises(ValueError, match="cannot be sharded apart; type trainer=ddp"):
        copy_for(config(Renamed, lora=True), "generator")
