"""What is exported of a transformer's student: stock diffusers draws from the folder what our own
sampler draws.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmd2.cli.main import main
from dmd2.nets.families import Flux2, Packed
from dmd2.nets.lora import layers
from dmd2.runs.export_sampling import arguments_of
from dmd2.runs.load import Student, load_student
from families import FAMILIES, SIZES, TRANSFORMERS, save_family

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install '.[text]'"
)
pytest.importorskip("peft", reason="peft is not installed: pip install '.[text]'")

CAPTIONS = ["a red dot", "a dot"]
TEXT = [name for name in FAMILIES if name != "dit"]
RUN = [
    *("experiment=sd15_dmd2", "teacher=pipeline", "metric=none", "trainer=cpu"),
    *("max_iterations=2", "critic_updates=1", "global_batch=2", "callbacks.samples=null"),
    *("optimizer.generator.lr=0.01", "optimizer.lr_factor.warmup=0", "log_every=1"),
    # Or our sampler computes with bfloat16 weights.
    *("data.captions.source=captions.txt", "lora=both", "teacher.dtype=null"),
]
STEPS = {"noise": "four_step", "ode": "four_step_ode"}


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    monkeypatch.setattr(sys, "argv", sys.argv)
    Path("captions.txt").write_text("\n".join(CAPTIONS))
    return tmp_path


def noises(student: Student) -> list[Tensor]:
    """A noise for each step [2, C, H, W], in the order in which a pipeline draws them."""
    torch.manual_seed(0)
    shape = (2, *student.data.shape)
    generator = student.generator
    if isinstance(generator, Packed):  # its pipelines draw tokens
        like = torch.zeros(shape)
        packed = generator.pack(like).shape
        return [generator.unpack(torch.randn(packed), like) for _ in student.sampler.times]
    return [torch.randn(shape) for _ in student.sampler.times]


def ours(student: Student, noise: list[Tensor]) -> Tensor:
    """The pictures [2, 3, H, W] in [0, 1] that the run's own sampler makes of captions 0 and 1."""
    with torch.no_grad():
        cond = student.conditioner(torch.arange(2))
        x0 = student.sampler.sample(student.generator, noise, cond)
        return student.data.codec.decode(x0).clamp(-1, 1) / 2 + 0.5


def stock(pipe: Any, student: Student, first: Tensor) -> Tensor:
    """The same by a pipeline, with the arguments that its card names."""
    generator = student.generator
    resolution = student.data.codec.resolution
    length = student.config["teacher"]["conditioner"]["encoder"]["length"]
    call = arguments_of(generator, student.sampler, resolution, length)
    # FLUX.2's pipeline makes tokens of what it is given, the others want tokens.
    is_packed = isinstance(generator, Packed) and not isinstance(generator, Flux2)
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    torch.randn(first.shape)  # the first noise, which it is given
    return pipe(
        prompt=list(CAPTIONS),  # Z-Image's pipeline writes into the list
        latents=generator.pack(first) if is_packed else first,
        output_type="pt",
        **call,
    ).images


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", TEXT)
def test_stock_diffusers_draws_what_our_sampler_draws(name: str, steps: str, inside: Path):
    size = SIZES[name]
    save_family(inside / name, name)
    asked = [f"teacher.source={name}", f"teacher.autoencoder.resolution={size}"]
    dmd2("train", *RUN, *asked, f"sampler={STEPS[steps]}", "paths.run=run")
    dmd2("export", "run=run", "out=out")
    student = load_student(Path("run"))
    student.read(None)
    assert any(layer.lora_B["default"].weight.any() for _, layer in layers(student.generator.model))
    noise = noises(student)
    expected = ours(student, noise)
    pipe = diffusers.DiffusionPipeline.from_pretrained("out")
    if name == "chroma":
        masked_by_bools(pipe.transformer)
    found = stock(pipe, student, noise[0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.01
    if steps == "noise" and name != "pixart":  # whose pipeline reads no LoRA
        pipe = diffusers.DiffusionPipeline.from_pretrained(name, scheduler=pipe.scheduler)
        if name == "chroma":
            masked_by_bools(pipe.transformer)
        assert (stock(pipe, student, noise[0]) - expected).abs().max() > 1e-3
        pipe.load_lora_weights("out/lora")
        torch.testing.assert_close(stock(pipe, student, noise[0]), expected, rtol=0, atol=1e-4)
    assert Path("out/lora").is_dir() == (name != "pixart")


def masked_by_bools(transformer: Any) -> None:
    """Let a Chroma mask by the mask that its pipeline makes, and not add it."""
    inner = transformer.forward

    def forward(*args: Any, attention_mask: Tensor, **kwargs: Any) -> Any:
        return inner(*args, attention_mask=attention_mask.bool(), **kwargs)

    transformer.forward = forward


@pytest.mark.parametrize("steps", STEPS)
def test_stock_diffusers_draws_what_our_sampler_draws_of_classes(steps: str, inside: Path):
    save_family(inside / "dit", "dit")
    Path("classes.txt").write_text("\n".join(map(str, range(1000))))
    model = [f"++teacher.denoiser.model.{k}={v}" for k, v in TRANSFORMERS["dit"][1].items()]
    asked = [
        *("teacher=dit", "teacher.source=dit", f"teacher.autoencoder.resolution={SIZES['dit']}"),
        *("+teacher.autoencoder.factor=2", "data.captions.source=classes.txt"),
    ]
    dmd2("train", *RUN, *asked, *model, f"sampler={STEPS[steps]}", "paths.run=run")
    dmd2("export", "run=run", "out=out")
    student = load_student(Path("run"))
    student.read(None)
    expected = ours(student, noises(student))
    pipe = diffusers.DiffusionPipeline.from_pretrained("out")
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    call = arguments_of(student.generator, student.sampler, None, None)
    found = pipe(class_labels=[0, 1], output_type="np", **call).images
    torch.testing.assert_close(
        torch.from_numpy(found).permute(0, 3, 1, 2), expected, rtol=0, atol=1e-4
    )
    assert expected.std() > 0.01 and not Path("out/lora").exists()
