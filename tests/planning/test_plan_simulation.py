"""The plan's simulation against real steps on the CPU and against closed forms."""

import pytest
import torch
from hydra import initialize_config_dir

from dmd2.benchmarks.iteration import random_module, shape_of
from dmd2.benchmarks.meter import Meter
from dmd2.cli.plan import composed
from dmd2.config.folder import config_folder
from dmd2.planning.cuda_autocast import FLOAT32, cuda_autocast
from dmd2.planning.dry_run import BUILDING, DryRun, HostRead
from dmd2.planning.search import bytes_of, fitting, needed
from dmd2.planning.simulation import measured, simulate

SMALL = ["experiment=digits_dmd2", "data.batch_size=32", "global_batch=null"]


@pytest.fixture(autouse=True)
def _hydra(monkeypatch):
    monkeypatch.setenv("DMD2_RUN_ID", "test")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


@pytest.mark.parametrize(
    "words",
    [
        SMALL,
        [*SMALL, "data.batch_size=64", "accumulate=2", "ema=[]", "loss=dmd2_paper"],
    ],
)
def test_the_peak_is_that_of_a_real_step(words):
    config = composed(1, words)
    with Meter() as meter:
        module = random_module(config, shape_of(config["teacher"]))
        real = measured(config, module, meter)
    planned = simulate(config)
    assert planned.peak.total() == pytest.approx(real.peak.total(), rel=0.05)
    assert planned.both.flops == real.both.flops
    assert planned.trained == real.trained


def test_a_critic_turn_is_4_forward_and_3_encoder_passes():
    """Of F and E, a pass of the network and of its encoder; a backward pass counts two.

    The sample F, the fake score's F + 2F, and real rows beside it E + 2E; the head is small.
    """
    config = composed(1, SMALL)
    found = simulate(config)
    without = simulate(composed(1, [*SMALL, "loss=no_gan"]))
    assert without.alone.flops == pytest.approx(4 * without.forward.flops, rel=0.03)
    assert 4 < found.alone.flops / found.forward.flops < 7.3


def test_nothing_is_computed_and_no_number_is_read():
    with DryRun():
        x = torch.ones(4, 3) @ torch.ones(3, 2)
        x += 1
        assert x.shape == (4, 2) and x.t().stride() == (1, 2)
        with pytest.raises(HostRead, match="reads a number"):
            x.sum().item()
    with DryRun(BUILDING):
        assert torch.ones(3).sum().item() == 3.0
        with pytest.raises(HostRead):
            torch.ones(BUILDING + 1).sum().item()


def test_autocast_has_the_rules_of_cuda():
    x = torch.randn(2, 8, requires_grad=True)
    with cuda_autocast(), torch.autocast("cpu", torch.bfloat16):
        assert torch.nn.functional.linear(x, x).dtype == torch.bfloat16
        assert torch.softmax(x.bfloat16(), 1).dtype == torch.float32
        assert torch.nn.functional.layer_norm(x.bfloat16(), (8,)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.softmax(x.bfloat16(), 1).dtype == torch.bfloat16
    if torch.backends.cuda.is_built():
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        assert all(has(f"aten::{name}", "AutocastCUDA") for name in FLOAT32)


def test_the_search_finds_words_that_fit():
    def compose(words):
        return composed(1, words)

    memory = needed(simulate(compose([*SMALL, "data.batch_size=512", "accumulate=2"]))) + 1
    added, found = fitting([*SMALL, "data.batch_size=512"], memory, compose)
    assert added == ["accumulate=2"]
    assert needed(found) <= memory
    assert needed(simulate(compose([*SMALL, "data.batch_size=512", *added]))) == needed(found)


def test_an_amount_of_memory():
    assert bytes_of("24GB") == bytes_of("24") == 24e9
    assert bytes_of("24GiB") == 24 * 2**30
    with pytest.raises(ValueError, match="memory=low is no amount of memory"):
        bytes_of("low")
