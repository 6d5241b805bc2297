"""Scores do not depend on the ranks, to the last bit; sizes come from one pass; classes are as the
config says.
"""

import json
import random
import socket
from contextlib import suppress
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import distributed, multiprocessing, nn

from dmd2.data.digits import Digits
from dmd2.diffusion.conditioning import ClassLabels
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.diffusion.schedules import Karras
from dmd2.evaluation.partial_sums import PartialSums
from dmd2.evaluation.pictures import comparison
from dmd2.evaluation.protocol import ScoringProtocol
from dmd2.evaluation.references import data_references, teacher_references
from dmd2.evaluation.scoring import Evaluator
from dmd2.metrics.detectors import Flatten, RandomConvolutions
from dmd2.metrics.frechet import RelativeFrechetDistance
from dmd2.metrics.inception_score import InceptionScore
from dmd2.metrics.kid import KernelDistance
from dmd2.metrics.precision_recall import NearestTrain, PrecisionRecall
from dmd2.metrics.suite import MetricSuite
from dmd2.nets.adm import DhariwalUNet
from dmd2.training.callbacks.evaluation import Evaluation
from dmd2.training.record import Record


def evaluator(num_samples, **settings):
    """Digits of which few are real, and a small suite with every kind of state."""
    detectors = {"random": RandomConvolutions(), "pixels": Flatten()}
    metrics = {
        "rfd": RelativeFrechetDistance("random", "rfd"),
        "kid": KernelDistance("random", num_subsets=3, subset_size=20),
        "manifold": PrecisionRecall("pixels"),
        "nearest": NearestTrain("pixels"),
        "is": InceptionScore("random", num_splits=3),
    }
    settings = {
        "batch_size": 16,
        "teacher_steps": [],
        "primary": "rfd",
        "num_reference": 90,
    } | settings
    suite = MetricSuite(detectors, metrics, batch_size=16)
    protocol = ScoringProtocol(suite, num_samples, **settings)
    data = Digits(batch_size=4, seed=0)
    data.setup()
    return Evaluator(protocol, data, ClassLabels(10), FewStepSampler([1.0]))


def student():
    """A network of random weights."""
    torch.manual_seed(0)
    settings = {
        "model_channels": 8,
        "channel_mult": [1],
        "num_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    net = DhariwalUNet(8, 1, 1, label_dim=10, **settings)
    for parameter in net.parameters():  # some of them begin at zero
        nn.init.normal_(parameter, std=0.2)
    return EDM(net, Karras(), sigma_data=0.5).requires_grad_(False).eval()


def cut_off_and_resumed(folder, after, num_samples):
    """Scores of a second attempt, whose first one ended after some batches."""
    calls = iter(range(100))
    for stop in (lambda: next(calls) >= after, lambda: False):
        sums = PartialSums(folder / "scoring", "of this network", every=1)
        with suppress(InterruptedError):
            found = evaluator(num_samples).scores(student(), stop, sums=sums)
    return found


def score_on_rank(rank, ports, path):
    torch.set_num_threads(1)
    for world_size, port in ports.items():
        if rank < world_size:
            distributed.init_process_group(
                "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
            )
            (path / f"{rank}-{world_size}.json").write_text(
                json.dumps(evaluator([32, 70]).scores(student()))
            )
            if world_size == 2:  # and all end in the middle: of five blocks they have three and two
                (path / f"{rank}.resumed").write_text(
                    json.dumps(cut_off_and_resumed(path, 1, num_samples=70))
                )
            distributed.destroy_process_group()


def test_any_number_of_ranks_gives_the_same_bits(tmp_path):
    ports = {}
    for world_size in (3, 2):  # of two blocks, then three more: one of three ranks begins with none
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports[world_size] = free.getsockname()[1]
    multiprocessing.spawn(score_on_rank, (ports, tmp_path), nprocs=3)
    alone = evaluator([32, 70]).scores(student())
    found = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert found == [alone] * 5
    resumed = [json.loads(path.read_text()) for path in tmp_path.glob("*.resumed")]
    assert resumed == [evaluator(70).scores(student())] * 2


def test_a_score_that_was_cut_off_goes_on_to_the_same_bits(tmp_path):
    whole = evaluator([32, 70]).scores(student())
    for after in (1, 4):
        assert cut_off_and_resumed(tmp_path / str(after), after, [32, 70]) == whole
    again, made = evaluator([32, 70]), []
    for key, num in (("of this network", 0), ("of another network", 5)):
        sums = PartialSums(tmp_path / "4" / "scoring", key, every=1)
        assert again.scores(student(), lambda: made.append(1), sums=sums) == whole
        assert len(made) == num


def test_sums_of_which_a_bit_flipped_are_made_again(tmp_path, capsys):
    whole = cut_off_and_resumed(tmp_path, 4, 70)
    (path,) = (tmp_path / "scoring").glob("*.safetensors")
    content, draw = path.read_bytes(), random.Random(0)
    suite = evaluator(70)
    for _ in range(20):
        # Half of them in the header and the smaller half of the tensors.
        i = draw.randrange(8 * min(len(content), draw.choice([1000, len(content)])))
        damaged = bytearray(content)
        damaged[i // 8] ^= 1 << i % 8
        path.write_bytes(damaged)
        sums = PartialSums(tmp_path / "scoring", "of this network", every=9)
        assert suite.scores(student(), sums=sums) == whole
        assert f"{path.name} is" in capsys.readouterr().err


def test_another_batch_size_changes_the_rounding_of_networks_alone():
    one, other = (evaluator(70, batch_size=size).scores(student()) for size in (16, 70))
    assert one == pytest.approx(other, rel=1e-3)


class Watching(KernelDistance):
    """A metric that says under which autocast it is updated."""

    seen: ClassVar[list[bool]] = []

    def update(self, features, labels):
        self.seen.append(torch.is_autocast_enabled("cpu"))
        super().update(features, labels)


def test_samples_are_made_in_the_protocol_s_dtype_and_scored_in_float32(tmp_path):
    seen: dict[str, list[torch.dtype]] = {}
    scores = {}
    for dtype in ("float32", "bfloat16"):
        network, protocol = student(), evaluator(70, dtype=dtype)
        protocol.suite.metrics["kid"] = Watching("random", num_subsets=3, subset_size=20)
        for name, module in (
            ("network", network.model.out_conv),
            ("detector", protocol.suite.detectors["random"]),
        ):
            module.register_forward_hook(
                lambda _, __, y, name=name: seen.setdefault(name, []).append(y.dtype)
            )
        with torch.autocast("cpu", torch.bfloat16):  # training's own, of which no score depends
            scores[dtype] = protocol.scores(network)
        assert set(seen.pop("network")) == {getattr(torch, dtype)}
        comparison(protocol, network, 1.0, network, tmp_path / "comparison.png")
        assert set(seen.pop("network")) == {getattr(torch, dtype)}, "pictures show what is scored"
        assert set(seen.pop("detector")) == {torch.float32}
    assert Watching.seen and not any(Watching.seen)
    assert scores["float32"] == evaluator(70).scores(student())
    assert scores["bfloat16"] != scores["float32"]
    assert scores["bfloat16"]["rfd"] == pytest.approx(scores["float32"]["rfd"], rel=0.02)


def test_sizes_score_the_beginning_of_one_set():
    found = evaluator([32, 70]).scores(student())
    assert found == {
        f"{name}_{num}": value
        for num in (32, 70)
        for name, value in evaluator(num).scores(student()).items()
    }
    assert evaluator([32, 70]).scores(student(), num_counts=1).keys() == {
        key for key in found if key.endswith("_32")
    }
    assert evaluator([32, 70]).primary == "rfd_32"


def test_references_are_named_by_their_own_number():
    held_out = len(evaluator([20, 70]).data.test)
    sizes = evaluator([20, held_out], num_reference=None)
    found = data_references(sizes, torch.device("cpu"))["floor"]["real"]
    assert set(found) <= set(evaluator([20, held_out]).scores(student()))
    assert f"rfd_{held_out}" in found and teacher_references(sizes, student(), 1.0) == {
        "teacher": {},
        "start": {},
    }


def test_classes_come_in_turn_or_at_random():
    turns, draws = (
        evaluator(20, classes=name).sample_set("cpu") for name in ("balanced", "random")
    )
    assert turns.labels(range(1000)).bincount().tolist() == [100] * 10
    labels = draws.labels(range(1000))
    counts = labels.bincount(minlength=10)
    assert counts.unique().numel() > 1 and (counts - 100).abs().max() < 5 * 90**0.5
    assert torch.equal(draws.labels(range(300, 305)), labels[300:305])
    assert torch.equal(draws.noise(range(3), 0), turns.noise(range(3), 0))
    with pytest.raises(ValueError, match=r"metric\.classes must be balanced or random, got even"):
        evaluator(20, classes="even")


def test_the_callback_scores_all_sizes_rarely(monkeypatch):
    asked = []
    given = {"evaluator": evaluator([32, 70]), "record": Record(), "score_teacher": dict}
    callback = Evaluation(every=2, full_every=4, **given)
    monkeypatch.setattr(callback, "score", lambda *arguments: asked.append(arguments[-1]))
    for step in range(1, 8):
        callback.on_train_batch_end(
            SimpleNamespace(global_step=step, max_steps=7), None, None, None, 0
        )
    assert asked == [1, None, 1, None]  # at 2, 4, 6 and at the end
    with pytest.raises(ValueError, match="multiple of every=4, got 6"):
        Evaluation(every=4, full_every=6, **given)
