"""`compile`: the same numbers and names from compiled networks, and no graph after the first cycle.

Backends of torch that generate no code: what Dynamo traces, guards and traces again is what is
tested here.
"""

import copy
from importlib.util import find_spec

import lightning as L
import pytest
import torch
from hydra import initialize_config_dir
from torch._dynamo.utils import counters

from dmd2.config.check import of_train
from dmd2.config.folder import config_folder
from dmd2.diffusion.compiled import compile_in_place
from dmd2.diffusion.preconditioning import EDM, UnscaledDenoiser
from dmd2.diffusion.schedules import VP, Flow, Karras
from dmd2.nets.checkpointing import Checkpointing
from dmd2.nets.song import SongUNet
from dmd2.nets.toy import MLP
from dmd2.runs.assemble import assemble
from dmd2.runs.build import build
from dmd2.runs.compiled import compile_networks
from test_module import Record, fit, module, weights

CYCLE = 4


@pytest.fixture(autouse=True)
def fresh():
    """Dynamo as in a new process."""
    torch._dynamo.reset()
    counters.clear()


def num_graphs(*_: L.LightningModule) -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("parts", ["halves", "blocks"])
def test_training_is_the_same_and_what_is_compiled_is_compiled_in_the_first_cycle(parts: str):
    options = {"critic_updates": CYCLE, "ema": [0.5], "times": (1.0, 0.5)}
    eager, compiled = module(**options), module(**options)
    compile_networks(compiled, parts, backend="aot_eager")
    graphs = Record(num_graphs)
    fit(eager, 3 * CYCLE), fit(compiled, 3 * CYCLE, graphs)
    assert graphs.values[CYCLE] == graphs.values[-1] > 0 and not counters["graph_break"]
    states = eager.state_dict(), compiled.state_dict()
    assert states[0].keys() == states[1].keys()
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(eager.logs, compiled.logs, rtol=1e-4, atol=1e-6)
    # The average is scored by its own weights, and so is a copy of it.
    (average,) = compiled.ema.models
    x_t, t = torch.randn(16, 2), torch.rand(16)
    x0 = average(x_t, t, {})
    torch.testing.assert_close(x0, eager.ema.models[0](x_t, t, {}), rtol=1e-5, atol=1e-6)
    assert (x0 - compiled.generator(x_t, t, {})).abs().max() > 1e-4
    copied = copy.deepcopy(average)
    copied.load_state_dict(eager.generator.state_dict())
    torch.testing.assert_close(copied(x_t, t, {}), eager.generator(x_t, t, {}))
    assert not torch.equal(weights(copied), weights(average))


def test_blocks_of_many_shapes_are_all_compiled():
    """A U-Net's blocks share one method, of which torch by itself keeps eight graphs."""
    net = SongUNet(4, 1, 1, model_channels=8, channel_mult=[1, 2], num_blocks=1, dropout=0.0)
    denoiser = EDM(net, Karras(), taps=["enc.2x2_block0"]).eval().requires_grad_(False)
    eager, x_t, t = copy.deepcopy(denoiser), torch.randn(2, 1, 4, 4), torch.rand(2)
    compile_in_place(denoiser, "blocks", backend="eager")
    assert torch.equal(denoiser(x_t, t, {}), eager(x_t, t, {}))
    assert torch.equal(denoiser.features(x_t, t, {})[0], eager.features(x_t, t, {})[0])
    assert num_graphs() == 10 == len(denoiser.blocks()) and not counters["graph_break"]
    assert net.enc["2x2_block0"].caught is None  # nothing of the pass is left


@pytest.mark.parametrize("parts", ["halves", "blocks"])
@pytest.mark.parametrize("how", ["selective", True])
def test_what_is_computed_again_is_compiled_too(how: Checkpointing, parts: str):
    sizes = {"channel_mult": [1, 2], "num_blocks": 1, "dropout": 0.0}
    net = SongUNet(4, 1, 1, model_channels=8, **sizes, gradient_checkpointing=how)
    denoiser = EDM(net, Karras(), taps=["enc.2x2_block0"])
    eager, x_t, t = copy.deepcopy(denoiser), torch.randn(2, 1, 4, 4), torch.rand(2)
    compile_in_place(denoiser, parts, backend="aot_eager")
    found = []
    for network in (denoiser, eager):
        encoding = network.encode(x_t, t, {}, None)
        loss = network.decode(encoding).square().mean() + encoding.features[0].square().mean()
        loss.backward()
        found.append([loss, *(p.grad for p in network.parameters() if p.grad is not None)])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    assert num_graphs() > 0 and not counters["graph_break"]


def test_a_pipeline_s_network_is_compiled_in_blocks():
    """Passes with all rows, some and none decoded."""
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    from nets.test_unet import inputs, small  # noqa: PLC0415  # it imports diffusers

    denoiser = small().requires_grad_(True)
    eager = copy.deepcopy(denoiser)
    compile_in_place(denoiser, "blocks", backend="eager")
    seen = []
    for _cycle in range(2):
        found = []
        for network in (denoiser, eager):
            x_t, t, cond = inputs(4)
            network.zero_grad()
            encodings = [network.encode(x_t, t, cond, num) for num in (None, 2, 0)]
            losses = [x0.square().mean() for x0 in map(network.decode, encodings[:2])]
            losses += [encoding.features[0].square().mean() for encoding in encodings]
            torch.stack(losses).sum().backward()
            found.append([*losses, *(p.grad for p in network.parameters())])
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)
        seen.append(num_graphs())
    assert seen[0] == seen[1] > 0 and not counters["graph_break"]
    assert denoiser.state_dict().keys() == eager.state_dict().keys()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("all", "compile must be blocks, halves or null, got 'all'"),
        ("blocks", "type compile=halves"),
    ],
)
def test_what_does_not_go_is_refused(parts: str, message: str):
    denoiser = UnscaledDenoiser(MLP(2), Flow(), "flow")
    denoiser.model.enc = denoiser.model.dec = torch.nn.Identity()  # no list of layers any more
    with pytest.raises(ValueError, match=message):
        compile_in_place(denoiser, parts)


@pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
def test_halves_want_a_network_of_two():
    from nets.test_unet import BETAS, UNet, small  # noqa: PLC0415  # it imports diffusers

    denoiser = UNet(small().model, VP.scaled_linear(**BETAS), "eps")
    with pytest.raises(ValueError, match="UNet2DConditionModel has no halves; type compile=blocks"):
        compile_in_place(denoiser, "halves")


def test_a_run_says_at_once_what_does_not_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = of_train(["experiment=toy2d_dmd2", "trainer=fsdp", "trainer.accelerator=cpu"])
    with pytest.raises(ValueError, match=r"block by block; type compile=blocks"):
        assemble(config | {"compile": "halves"}, build(config["metric"]))
