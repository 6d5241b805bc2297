"""Images that are no squares: a student drawn at another size, as stock diffusers draws it."""

import csv
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import dmd2
from dmd2.cli.main import main
from dmd2.data import Prompts
from dmd2.nets import VAE, from_configs, pipeline_encoder
from dmd2.runs.export_sampling import arguments_of
from dmd2.runs.load import Student
from families import save_family
from pipelines import save_pipeline

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install '.[text]'"
)
pytest.importorskip("peft", reason="peft is not installed: pip install '.[text]'")

CAPTIONS = ["a red dot", "a dot"]
WIDE = [16, 24]
"""Height and width in pixels; the base size is 16 x 16."""
RUN = [
    *("experiment=sd15_dmd2", "teacher=pipeline", "metric=none", "trainer=cpu"),
    *("max_iterations=4", "critic_updates=1", "global_batch=2", "log_every=1"),
    "checkpoint.every=2",
    *("optimizer.generator.lr=0.01", "optimizer.lr_factor.warmup=0", "callbacks.samples=null"),
    *("data.captions.source=captions.txt", "teacher.dtype=null"),
    "teacher.autoencoder.resolution=16",
]


SAMPLERS = {"sd3": "four_step_ode", "sdxl": "one_step_399"}
"""Samplers that add no noise on the way, which a pipeline would draw by itself."""


BUCKETS = "data.buckets=[[16,24],[24,16],[16,16]]"


def of(name: str) -> list[str]:
    """Overrides for a run of a pipeline."""
    return [*RUN, f"teacher.source={name}", f"sampler={SAMPLERS[name]}"]


def run(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line that a command is refused with, behind what is said of weights that were read."""
    with pytest.raises(SystemExit):
        run(*arguments)
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a Stable Diffusion 3 and of an SDXL, tiny, with their exports."""
    folder = tmp_path_factory.mktemp("sizes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", sys.argv)
        Path("captions.txt").write_text("\n".join(CAPTIONS))
        save_family(folder / "sd3", "sd3")
        save_pipeline(folder / "sdxl", "sdxl")
        for name in SAMPLERS:
            run("train", *of(name), BUCKETS, f"paths.run=run_{name}")
            run("export", f"run=run_{name}", f"out=out_{name}")
    return folder


@pytest.fixture(autouse=True)
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", sys.argv)


def stock(name: str, student: Student, noise: Tensor) -> Tensor:
    """The latents that the exported pipeline makes of a noise, at its size."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(f"out_{name}")
    pipe.set_progress_bar_config(disable=True)
    call = arguments_of(student.generator, student.sampler, None, None)
    call |= {"height": WIDE[0], "width": WIDE[1], "latents": noise, "output_type": "latent"}
    return pipe(CAPTIONS, **call).images


@pytest.mark.parametrize("name", SAMPLERS)
def test_another_size_is_what_the_stock_pipeline_draws(name: str):
    student = dmd2.load(f"run_{name}").at_size(WIDE)
    samples = student.sample_set(3)
    x0, _ = samples.make(student.sampling(), range(2))
    assert x0.shape == (2, 4, 8, 12)
    theirs = stock(name, student, samples.noise(range(2), 0))
    assert theirs.std() > 0.1
    assert (x0 - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp_min(1)
    run(
        "sample",
        f"run=run_{name}",
        f"size=[{WIDE[0]},{WIDE[1]}]",
        "num_images=2",
        "seed=3",
        f"out=drawn_{name}",
    )
    drawn = np.stack([np.asarray(Image.open(f"drawn_{name}/{i:06d}.png")) for i in range(2)])
    assert drawn.shape == (2, *WIDE, 3)
    assert np.array_equal(drawn, student.data.to_pixels(x0).permute(0, 2, 3, 1).numpy())
    same = dmd2.load(f"run_{name}")
    assert torch.equal(same.sample(2, size=[16, 16]), same.sample(2))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ([17, 24], "multiples of the VAE's 2"),
        ([18, 24], "tokens are 2 x 2 pixels of the latents, and these are 9 x 12"),
        ([16, 68], "places for 16 x 16 tokens, and these are 4 x 17"),
        ([16], r"a size is height and width in pixels, e\.g\. \[768,1344\], got \[16\]"),
        ([16, 24.0], "a size is height and width"),
        (16, "a size is height and width"),
    ],
)
def test_sizes_that_a_student_cannot_make_are_refused(size: object, words: str):
    with pytest.raises(ValueError, match=words):
        dmd2.load("run_sd3").at_size(size)  # type: ignore[arg-type]


def test_a_refused_size_leaves_no_folder(capsys: pytest.CaptureFixture[str]):
    line = refused(capsys, "sample", "run=run_sd3", "size=[18,24]", "out=none")
    assert "no images of 18 x 24 pixels" in line
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("name", "most"), [("sd3", 32), ("auraflow", 16), ("zimage", 64)], ids=lambda x: str(x)
)
def test_a_network_draws_as_far_as_its_table_of_places_goes(
    name: str, most: int, folders: Callable[[str], Path]
):
    """Beyond, AuraFlow's would take places of another row, and the others end in an IndexError."""
    denoiser = from_configs(str(folders(name)), [], gradient_checkpointing=False)
    cond = pipeline_encoder(str(folders(name)))
    cond = cond(cond.tokens(CAPTIONS[:1]))
    for height, width in ((most, 4), (4, most)):
        denoiser.check_size(height, width)
        with torch.no_grad():
            x0 = denoiser(torch.randn(1, 4, height, width), torch.ones(1), cond)
        assert x0.shape[2:] == (height, width) and x0.isfinite().all()
    with pytest.raises(ValueError, match=f"places for {most // 2} x {most // 2} tokens"):
        denoiser.check_size(4, most + 2)


def test_dit_draws_squares_alone(folders: Callable[[str], Path]):
    denoiser = from_configs(str(folders("dit")), [], gradient_checkpointing=False)
    denoiser.check_size(16, 16)
    with pytest.raises(ValueError, match="squares alone"):
        denoiser.check_size(8, 16)


@pytest.mark.parametrize("name", SAMPLERS)
def test_training_on_buckets_is_finite_and_its_card_names_them(name: str):
    with Path(f"run_{name}/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = ("generator/loss_dm", "generator/gradient_norm", "critic/loss_denoising")
    assert len(rows) == 4
    assert np.isfinite([float(row[key]) for row in rows for key in keys]).all()
    assert "takes any: 16 x 24, 24 x 16, 16 x 16." in Path(f"out_{name}/README.md").read_text()


def prompts(**options: Any) -> Any:
    """A data module of captions, for an autoencoder whose files nobody reads here."""
    codec = VAE("nowhere", resolution=16, scaling_factor=1.0, factor=2)
    found = Prompts(captions=CAPTIONS, autoencoder=codec, batch_size=2, seed=0, **options)
    found.setup()
    return found


def test_a_batch_has_one_bucket_that_its_number_decides():
    data = prompts(buckets=[[16, 24], [24, 16], [16, 16], [16, 16]])
    batches = [data.on_after_batch_transfer({"index": k}) for k in range(4000)]
    for batch in batches:
        height, width = batch["size"]
        assert batch["shape"] == (4, height // 2, width // 2)
    again = [data.on_after_batch_transfer({"index": k}) for k in reversed(range(4000))]
    assert again[::-1] == batches
    # Listed twice is twice as likely: three standard deviations of 1000 and 2000 in 4000.
    counts = Counter(batch["size"] for batch in batches)
    assert abs(counts[16, 24] - 1000) < 83 and abs(counts[16, 16] - 2000) < 96
    assert prompts().on_after_batch_transfer({"index": 0}) == {"index": 0}


def test_a_run_on_buckets_resumes_to_the_same_weights():
    half = "resume=run_sd3/checkpoints/00000002.ckpt"
    run("train", *of("sd3"), BUCKETS, half, "paths.run=cut")
    whole, cut = (
        load_file(f"{name}/checkpoints/student.safetensors") for name in ("run_sd3", "cut")
    )
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())
    # Both halves have batches of more than one size.
    data = prompts(buckets=[[16, 24], [24, 16], [16, 16]])
    sizes = [data.on_after_batch_transfer({"index": k})["size"] for k in range(4)]
    assert len(set(sizes)) > 1, sizes


def test_sdxl_is_told_the_size_and_so_is_its_twin():
    conditioner = dmd2.load("run_sdxl").conditioner
    labels = torch.tensor([0, 1])
    cond = conditioner.at_size((16, 24))(labels)
    base = conditioner(labels)
    assert cond["time_ids"].tolist() == [[16, 24, 0, 0, 16, 24]] * 2
    assert torch.equal(conditioner.null(cond)["time_ids"], cond["time_ids"])
    assert all(torch.equal(cond[key], base[key]) for key in ("text", "pooled"))
    assert torch.equal(conditioner.at_size(None)(labels)["time_ids"], base["time_ids"])


@pytest.mark.parametrize(
    ("bucket", "words"),
    [([17, 24], "multiples of the VAE's 2"), ([24], "a size is height and width in pixels")],
)
def test_buckets_that_are_no_sizes_are_refused(bucket: list[int], words: str):
    with pytest.raises(ValueError, match=words):
        prompts(buckets=[[16, 16], bucket])


def test_buckets_that_the_teacher_cannot_make_are_refused(capsys: pytest.CaptureFixture[str]):
    line = refused(capsys, "train", *of("sd3"), "data.buckets=[[16,16],[18,24]]", "paths.run=odd")
    assert "no images of 18 x 24 pixels: the network's tokens are 2 x 2" in line


def test_pairs_have_one_size(capsys: pytest.CaptureFixture[str]):
    paired = ["experiment=sd15_dmd", *of("sdxl")[1:], "loss=dmd", BUCKETS, "paths.run=paired"]
    assert "pairs have one size; set data.buckets=null" in refused(capsys, "train", *paired)
