"""The plan of 8-bit moments: their bytes beside the optimizer's own, and a word of the search."""

from importlib.util import find_spec

import pytest
import torch
from hydra import initialize_config_dir
from torch import Tensor, nn

from dmd2.cli.plan import composed
from dmd2.config.folder import config_folder
from dmd2.planning.eight_bit import PlannedAdamW8bit
from dmd2.planning.page import advice
from dmd2.planning.search import EIGHT_BIT, levers, needed
from dmd2.planning.simulation import simulate
from dmd2.training.adamw_8bit import adamw_8bit
from dmd2.training.module import NETWORKS

SIZES = [(64, 64), (100, 41), (4096,), (7,), ()]
DIGITS = [
    "experiment=digits_dmd2",
    "data.batch_size=2",
    "loss=no_gan",
    "ema=[]",
    "metric.batch_size=1",
]


@pytest.fixture
def _hydra(monkeypatch):
    monkeypatch.setenv("DMD2_RUN_ID", "test")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def parameters() -> list[nn.Parameter]:
    found = [nn.Parameter(torch.zeros(size)) for size in SIZES]
    for p in found:
        p.grad = torch.zeros_like(p)
    return found


def num_bytes(states: list[Tensor]) -> int:
    parts = [[getattr(x, n) for n in getattr(x, "tensor_attrs", ())] or [x] for x in states]
    return sum(x.numel() * x.itemsize for some in parts for x in some)


def states(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    optimizer.step()
    found = [s for state in optimizer.state.values() for name, s in state.items() if name != "step"]
    assert all(isinstance(x, Tensor) for x in found)
    return found


def test_the_bytes_are_those_of_quantized_moments():
    quantized, plain = 4096 * (1 + 4 / 256) + 4 * 256, 4 * (4100 + 7 + 1)
    found = num_bytes(states(PlannedAdamW8bit(parameters(), lr=1e-4, weight_decay=0.01)))
    assert found == 2 * (2 * quantized + plain)


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_they_are_those_of_torchao():
    with torch.compiler.set_stance("force_eager"):
        theirs = num_bytes(states(adamw_8bit(parameters())))
    assert num_bytes(states(PlannedAdamW8bit(parameters()))) == theirs


@pytest.mark.usefixtures("_hydra")
def test_a_run_that_fits_with_8_bit_moments_is_told_so():
    def compose(words: list[str]):
        return composed(1, words)

    whole, less = (simulate(compose([*DIGITS, *more])) for more in ([], [EIGHT_BIT]))
    states_of = [found.peaks["training"]["optimizer states"] for found in (whole, less)]
    assert states_of[1] < 0.5 * states_of[0]  # small tensors stay in float32
    said = advice(DIGITS, whole, (needed(whole) + needed(less)) / 2, compose)
    assert said.endswith(f"want torchao: .[low_memory]), type: {EIGHT_BIT}")


@pytest.mark.usefixtures("_hydra")
@pytest.mark.parametrize("name", ["sd15_dmd2", "sdxl_dmd2_4step", "imagenet64_dmd2", "distil"])
def test_the_word_composes_and_comes_before_those_that_train_less(name):
    words = [f"experiment={name}"]
    words += ["teacher.source=x", "data.captions.source=x", "lora=none"] * (name == "distil")
    try:
        config = composed(1, words)
    except (ValueError, FileNotFoundError):
        pytest.fail(f"{name} does not compose")
    found = list(levers(config))
    at = found.index([EIGHT_BIT])
    assert all(not word.startswith("lora") for words in found[:at] for word in words)
    eight = composed(1, [*words, EIGHT_BIT])["optimizer"]
    assert {eight[name]["_target_"] for name in NETWORKS} == {"dmd2.training.adamw_8bit"}
    assert eight["generator"]["lr"] == config["optimizer"]["generator"]["lr"]
