"""The plan's simulation against real steps on the CPU and against closed forms."""

from collections import Counter
from importlib.util import find_spec

import pytest
import torch
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from dmd2.benchmarks.iteration import random_module, shape_of
from dmd2.benchmarks.meter import Meter
from dmd2.cli.plan import beside_run, composed, main
from dmd2.config.folder import config_folder
from dmd2.io.files import write_hashed_json
from dmd2.planning.cuda_autocast import FLOAT32, cuda_autocast
from dmd2.planning.dry_run import BUILDING, DryRun, HostRead
from dmd2.planning.page import work_table
from dmd2.planning.search import bytes_of, fitting, levers, needed
from dmd2.planning.showing import Showing
from dmd2.planning.simulation import measured, simulate
from dmd2.planning.sizes import autoencoder_of, with_encoding, with_text
from dmd2.planning.stand_ins import with_stand_ins
from dmd2.runs.build import build
from dmd2.training.module import DMD
from page_runs import SUMMARY

SMALL_VAE = {"_target_": "dmd2.nets.VAE", "source": "x", "resolution": 64, "scaling_factor": 1.0}
SMALL = ["experiment=digits_dmd2", "data.batch_size=32", "global_batch=null"]


@pytest.fixture(autouse=True)
def _hydra(monkeypatch):
    monkeypatch.setenv("DMD2_RUN_ID", "test")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


PAIRS = ["experiment=digits_dmd", "data.batch_size=32", "pairs.batch_size=32", "global_batch=null"]
LORA = ["experiment=text2digits_dmd2_4step_lora", "lora=both", "data.batch_size=16"]


@pytest.mark.parametrize(
    "words",
    [
        SMALL,
        [*SMALL, "data.batch_size=64", "accumulate=2", "ema=[]", "loss=dmd2_paper"],
        LORA,
        PAIRS,
    ],
)
def test_the_peaks_are_those_of_real_steps_and_grids(words):
    config = composed(1, words)
    with Meter() as meter:
        module = random_module(config, shape_of(config["teacher"]))
        real = measured(config, module, meter)
    planned = simulate(config)
    assert planned.peaks.keys() == real.peaks.keys() == {"training", "sample grid", "score"}
    for name, peak in planned.peaks.items():
        assert peak.total() == pytest.approx(real.peaks[name].total(), rel=0.05)
    assert planned.both.flops == real.both.flops
    assert planned.trained == real.trained


@pytest.mark.parametrize(("loss", "num_e"), [("dmd2", 1), ("dmd2_paper", 2)])
def test_flops_are_those_of_whole_and_encoder_passes(loss, num_e):
    """Of F and E, a pass of the network and of its encoder; a backward pass counts two.

    A critic turn: the sample F, the fake score's F + 2F, and real rows beside it E + 2E. What a
    generator turn adds: 2F back through the sample, F of the teacher, F of the critic, and E back
    from the discriminator to the sample, whose weights get no gradient; a view of the
    discriminator's own costs another E.
    """
    found = simulate(composed(1, [*SMALL, f"loss={loss}"]))
    f, e = found.forward.flops, found.encoder.flops
    # The rest is the discriminator's own.
    assert found.alone.flops == pytest.approx(4 * f + 3 * e, rel=0.01)
    assert found.both.flops - found.alone.flops == pytest.approx(4 * f + num_e * e, rel=0.01)


def test_flops_without_a_discriminator_are_those_of_whole_passes():
    found = simulate(composed(1, [*SMALL, "loss=no_gan"]))
    assert found.encoder.flops == 0
    assert found.alone.flops == pytest.approx(4 * found.forward.flops, rel=0.001)


def test_flops_with_pairs_where_the_critic_has_no_iteration_alone():
    """6F of samples and pairs there and back, F of the teacher, F and 3F of the critic."""
    config = composed(1, PAIRS)
    found = simulate(config)
    assert found.both.flops == pytest.approx(11 * found.forward.flops, rel=0.001)
    rows = work_table(config, found)
    assert [row.split(" | ")[2] for row in rows[2:4]] == ["11.0", "11.0"]
    assert not any("critic alone" in row for row in rows)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is missing (extra: eval)")
def test_lpips_is_planned_without_its_files(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where they are not
    lpips = "loss.generator.regression.distance._target_=dmd2.losses.LPIPS"
    plain, found = (simulate(composed(1, [*PAIRS, *more])) for more in ([], [lpips]))
    # VGG-16's 13 convolutions, and a weight a channel of five; small tensors take a whole block.
    num = 14_714_688 + 64 + 128 + 256 + 512 + 512
    assert found.peaks["training"]["loss"] == pytest.approx(4 * num, rel=1e-4)
    assert found.most > plain.most and found.both.flops > plain.both.flops


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is missing (extra: eval)")
@pytest.mark.parametrize("name", ["sd15_dmd", "sdxl_ode_warmstart"])
def test_decoded_distances_are_planned_without_their_files(name, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = composed(1, [f"experiment={name}"])
    with DryRun(BUILDING):
        objective = build(with_stand_ins(config)["loss"])
    distance = objective.generator["regression"].distance
    with DryRun():
        latents = torch.zeros(2, *distance.autoencoder.shape, requires_grad=True)
        assert distance(latents, latents).shape == ()


def test_a_tensor_that_no_host_promises_is_one_line():
    with (
        DryRun(),
        pytest.raises(ValueError, match=r"a tensor of 4,194,304 GiB .*; type accumulate=N"),
    ):
        torch.zeros(1024, 1024, 1024, 1024, 1024)


def test_a_step_that_reads_the_device_has_no_plan(monkeypatch):
    step = DMD.training_step

    def reading(self, batch, batch_index):
        step(self, batch, batch_index)
        float(self.logs["critic/loss_denoising"])

    monkeypatch.setattr(DMD, "training_step", reading)
    with pytest.raises(HostRead, match="reads a number from the device"):
        simulate(composed(1, SMALL))


def test_a_grid_decodes_by_a_vae_of_the_published_shape():
    with DryRun(BUILDING):
        vae = autoencoder_of({"autoencoder": SMALL_VAE | {"at_once": 2, "dtype": "bfloat16"}})
    config = composed(1, [*SMALL, "callbacks.samples.num_samples=4"])
    showing = Showing(config, meter := DryRun(), vae)
    assert showing.nums == {"sample grid": 4, "score": 500}
    with meter:
        images = vae.decode(torch.zeros(4, 4, 8, 8))
    assert images.shape == (4, 3, 64, 64) and images.dtype == torch.float32
    assert sum(p.numel() for p in vae.network.parameters()) == 83_653_863  # Stable Diffusion's


def test_grids_and_scores_are_planned_in_their_dtype():
    wide, narrow = (
        simulate(composed(1, [*SMALL, f"metric.dtype={dtype}"])).peaks
        for dtype in ("float32", "bfloat16")
    )
    assert narrow["training"] == wide["training"]
    for name in ("sample grid", "score"):
        key = "activations and temporaries"
        # The casts of the weights are there, too, and norms are float32: it is no half.
        assert 0.5 * wide[name][key] < narrow[name][key] < 0.95 * wide[name][key]


def test_text_encoders_count_where_they_are_on_the_device():
    chosen = ["experiment=sdxl_dmd2_4step", "global_batch=null", "data.batch_size=1", "trainer=cpu"]
    for memory, in_training in (("balanced", 3_270_881_280), ("low", 0)):
        config = composed(1, [*chosen, f"memory={memory}"])
        assert with_text(config, Counter())["text encoders"] == in_training
        # COCO's captions have no table: their encoder comes before the samples are made, or stays.
        peak, kept = Counter(VAE=2**32), Counter(weights=2**31)
        found = with_encoding(config, peak, kept)
        one = {"weights": 2**31, "text encoders": 3_270_881_280}
        assert found == (with_text(config, peak) if in_training else one)
        assert not in_training or found["text encoders"] == in_training


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


AGAIN = "memory.gradient_checkpointing="


@pytest.mark.parametrize(
    ("batch_size", "fits"),
    [
        (512, [f"{AGAIN}selective"]),
        (512, [f"{AGAIN}true"]),
        (512, [f"{AGAIN}true", "accumulate=2"]),
        (16, ["metric.batch_size=250"]),
        (64, ["metric.batch_size=250", f"{AGAIN}selective"]),
    ],
)
def test_the_search_finds_the_mildest_words_that_fit(batch_size, fits):
    def compose(words):
        return composed(1, words)

    words = [*SMALL, f"data.batch_size={batch_size}"]
    memory = needed(simulate(compose([*words, *fits]))) + 1
    added, found = fitting(words, simulate(compose(words)), memory, compose)
    assert added == fits
    assert needed(found) <= memory
    assert needed(simulate(compose([*words, *added]))) == needed(found)


@pytest.mark.parametrize(("loss", "most"), [("dmd2", 64), ("f_distill", 4), ("embedding", 4)])
def test_shares_of_a_batch_are_large_enough_for_terms_that_compare_samples(loss, most):
    found = [
        words[0] for words in levers(composed(1, [*SMALL, "data.batch_size=64", f"loss={loss}"]))
    ]
    shares = [word for word in found if word.startswith("accumulate=")]
    assert shares[-1] == f"accumulate={most}"


def test_an_amount_of_memory():
    assert bytes_of("24GB") == bytes_of("24") == 24e9
    assert bytes_of("24GiB") == 24 * 2**30
    with pytest.raises(ValueError, match="memory=low is no amount of memory"):
        bytes_of("low")


def test_a_run_s_measured_peak_stands_beside_its_plan(tmp_path):
    config = composed(1, SMALL)
    OmegaConf.save(config, tmp_path / "config.yaml")
    write_hashed_json(tmp_path / "summary.json", SUMMARY)
    *_, line = beside_run(tmp_path)
    assert line.startswith("measured at most: 1.00 GiB of the process")
    with pytest.raises(FileNotFoundError, match="there is no run at"):
        beside_run(tmp_path / "none")
    with pytest.raises(ValueError, match="takes no other word, got gpus"):
        main([f"run={tmp_path}", "gpus=4"])
