"""Training with a GAN on images of several sizes: prepared in buckets, one bucket a batch."""

import csv
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import dmd2
from dmd2.cli.main import main
from dmd2.runs.load import Student
from dmd2.training.share import conditions
from families import save_family
from pipelines import save_pipeline

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[text]'")

SHAPES = [(16, 16), (20, 20), (32, 32), (16, 24), (24, 40), (32, 48)]
"""Heights and widths of the images, of which the first three are squares."""
BUCKETS = "[[16,16],[16,24]]"
SAMPLERS = {"sd3": "four_step", "sdxl": "one_step_399"}


def run(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def prepare(name: str, source: str, *options: str) -> None:
    """Latents of the pipeline's own VAE, by the command."""
    codec = [
        "recipe.autoencoder._target_=dmd2.nets.vae_of",
        f"recipe.autoencoder.source={name}",
        "recipe.autoencoder.resolution=16",
        "~recipe.autoencoder.scaling_factor",
    ]
    run("prepare", "recipe=latents", f"source={source}", *codec, *options)


def train(name: str, source: str, out: str, *options: str) -> None:
    """A run of a pipeline with a GAN."""
    run(
        *("train", "experiment=sd15_dmd2_gan", "teacher=pipeline", f"teacher.source={name}"),
        *("teacher.dtype=null", "teacher.autoencoder.resolution=16", f"sampler={SAMPLERS[name]}"),
        *("weights=null", "critic_weights=null", "metric=none", "trainer=cpu"),
        *("max_iterations=4", "critic_updates=1", "global_batch=2", "log_every=1"),
        *("checkpoint.every=2", "optimizer.generator.lr=0.01", "optimizer.critic.lr=0.01"),
        *("optimizer.lr_factor.warmup=0", "callbacks.samples=null"),
        *("teacher.head.width=8", "+teacher.head.num_groups=4"),
        *(f"data.source={source}", f"data.captions.source={source}", "data.num_workers=0"),
        *(f"paths.run={out}", *options),
    )


def rows_of(out: str) -> list[dict[str, str]]:
    """What a run logged, an iteration a row."""
    with Path(out, "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def batches(student: Student, num: int) -> list[dict[str, Any]]:
    """The first batches of a run's data, as it trained on them."""
    data = student.data
    return [data.on_after_batch_transfer(b) for b in islice(data.train_dataloader(), num)]


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory: pytest.TempPathFactory):
    """A Stable Diffusion 3 and an SDXL, tiny; images with captions, all of them and the squares;
    their latents in two buckets, and runs on these.
    """
    folder = tmp_path_factory.mktemp("buckets")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", sys.argv)
        save_family(folder / "sd3", "sd3")
        save_pipeline(folder / "sdxl", "sdxl")
        for source, num in (("images", 6), ("squares", 3)):
            Path(source).mkdir()
            for i, size in enumerate(SHAPES[:num]):
                pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
                Image.fromarray(pixels).save(f"{source}/{i}.png")
                Path(f"{source}/{i}.txt").write_text(["a red dot", "a dot"][i % 2])
        for name in SAMPLERS:
            prepare(name, "images", f"recipe.buckets={BUCKETS}", f"out={name}_two")
            train(name, f"{name}_two", f"run_{name}")
        yield


def weights(out: str) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{key}": value
        for part in ("student", "critic")
        for key, value in load_file(f"{out}/checkpoints/{part}.safetensors").items()
    }


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_gan_trains_on_two_buckets(name: str):
    rows = rows_of(f"run_{name}")
    keys = ["generator/loss_dm", "generator/loss_gan", "critic/loss_denoising", "critic/loss_gan"]
    values = [float(row[key]) for row in rows for key in (*keys, "generator/gradient_norm")]
    assert len(rows) == 4 and np.isfinite(values).all() and min(values) > 0
    # Both sizes were among them, in either half.
    sizes = [batch["size"] for batch in batches(dmd2.load(f"run_{name}"), 4)]
    assert set(sizes[:2]) == set(sizes[2:]) == {(16, 16), (16, 24)}


def test_a_run_on_buckets_resumes_to_the_same_weights():
    train("sd3", "sd3_two", "cut", "resume=run_sd3/checkpoints/00000002.ckpt")
    whole, cut = weights("run_sd3"), weights("cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())


def test_the_card_of_an_export_names_the_buckets():
    run("export", "run=run_sdxl", "out=exported")
    assert "takes any: 16 x 16, 16 x 24." in Path("exported/README.md").read_text()


def test_real_and_generated_rows_of_sdxl_are_told_the_same_size():
    """Were only real ones told of a crop, the discriminator would read there which they are."""
    student = dmd2.load("run_sdxl")
    for batch in batches(student, 4):
        told = student.conditioner.at_size(batch["size"])
        needs = frozenset[str](), frozenset({"real"})
        cond, real, real_cond = conditions(torch.tensor([1, 0]), batch, told, *needs)
        assert real is not None
        height, width = (2 * side for side in real.shape[2:])
        expected = [[height, width, 0, 0, height, width]] * 2
        assert cond["time_ids"].tolist() == real_cond["time_ids"].tolist() == expected


def test_one_bucket_is_the_run_without_buckets():
    prepare("sd3", "squares", "out=plain")
    prepare("sd3", "squares", "recipe.buckets=[[16,16]]", "out=one")
    for name in ("plain", "one"):
        train("sd3", name, f"run_{name}", "max_iterations=2")
    plain, one = weights("run_plain"), weights("run_one")
    assert plain.keys() == one.keys()
    assert all(torch.equal(value, one[key]) for key, value in plain.items())
    assert all(
        a[key] == b[key]
        for a, b in zip(rows_of("run_plain"), rows_of("run_one"), strict=True)
        for key in a
        if "loss" in key
    )
