"""Exports a run's student as a diffusers pipeline: U-Net, scheduler, model card, LoRA's weights.

diffusers loads the folder without this project. Its LCM scheduler samples at the timesteps of
training: denoise, re-noise with fresh noise, denoise (DMD2 section 4.5); no guidance.
"""

from pathlib import Path
from typing import Any

import torch

from dmd2.diffusion.denoiser import Prediction
from dmd2.diffusion.schedules import VP
from dmd2.io.hub import PREDICTIONS
from dmd2.io.tensors import let_others_read, save_tensors
from dmd2.nets.lora import layers, merged, products
from dmd2.nets.unet import UNet
from dmd2.runs.build import build
from dmd2.runs.load import Student
from dmd2.runs.model_card import card
from dmd2.runs.summary import read_summary


def export(student: Student, weights: str | None, source: str | None, out: Path) -> str:
    """Write the folder `out`; returns a line on what is in it.

    weights  One of the run's averages, "raw", or a generator's .safetensors; None takes the first
             average.
    source   The teacher's pipeline, a folder or a name on the hub, for all but U-Net and
             scheduler; None takes the one of the run's text encoder. A run with neither gets a
             pipeline without an autoencoder, on pixels.

    Raises ValueError where the student is no U-Net of diffusers, or `out` is not empty.
    """
    # diffusers' schedulers know a table of alphas (VP); flow and EDM students would need others.
    generator = student.generator
    if not isinstance(generator, UNet) or not isinstance(generator.schedule, VP):
        kinds = (
            f"a {type(generator.model).__name__} on the schedule "
            f"{type(generator.schedule).__name__}"
        )
        raise ValueError(
            f"{student.run} is of {kinds}, and only U-Nets of diffusers on VP are exported; "
            f"draw its samples here: dmd2 sample run={student.run}"
        )
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; name another folder: out=DIR")
    summary = read_summary(student.run / "summary.json")
    student.read(weights)
    rows = generator.schedule.row_of_time(torch.tensor(student.sampler.times)).tolist()
    # A text encoder of a pipeline names it (`source`); the tiny one of the digits names none.
    encoder = student.config["teacher"]["conditioner"]["encoder"]
    # The variant is one of that pipeline's files; another pipeline may not have it.
    variant = encoder.get("variant") if source is None else None
    source = source or encoder.get("source")
    parts = {
        "unet": merged_unet(generator),
        "scheduler": scheduler(generator.schedule, generator.prediction, rows),
    }
    if student.config["teacher"].get("loras"):  # which may have changed the text encoders
        models: Any = student.conditioner.get_submodule("encoder.models")
        parts |= {f"text_encoder{f'_{i}' * (i > 1)}": x for i, x in enumerate(models, start=1)}
    pipeline = (
        on_pixels(build(encoder), parts) if source is None else of_teacher(source, variant, parts)
    )
    pipeline.save_pretrained(out)
    for path in out.rglob("*.safetensors"):
        let_others_read(path)
    has_lora = any(layers(generator.model))
    if has_lora:
        named = {
            f"unet.{name}": x.detach().cpu().contiguous()
            for name, x in products(generator.model).items()
        }
        save_tensors(named, out / "lora" / "pytorch_lora_weights.safetensors", {"format": "pt"})
    chosen = weights or student.names[0]
    (out / "README.md").write_text(
        card(student.config, summary, chosen, rows, source, variant, has_lora)
    )
    return (
        f"{out}: a {type(pipeline).__name__} at the timesteps "
        f"{rows}{', and its LoRA' * has_lora}; see README.md"
    )


def merged_unet(generator: UNet) -> Any:
    """The student's `UNet2DConditionModel`, with LoRA's products added to the frozen weights."""
    # A new network of the same config: the student's own layers may be peft's.
    network = type(generator.model).from_config(generator.model.config)
    network.load_state_dict(merged(generator.model))
    return network.eval()


def scheduler(schedule: VP, prediction: Prediction, rows: list[int]) -> Any:
    """diffusers' LCM scheduler with the student's noise levels.

    Without `timesteps` in the call it takes 999, 749, 499 and 249 for four steps; one step at 399
    has to be asked for.
    """
    from diffusers import LCMScheduler  # noqa: PLC0415

    table = schedule.alphas_cumprod.cpu()
    # alphas_cumprod is the running product of 1 - beta: its ratios give the betas back.
    betas = 1 - table / torch.cat([table.new_ones(1), table[:-1]])
    shared = {
        "num_train_timesteps": len(table),
        # LCM's timesteps are every (1000 / this)-th row of the table, from the last one down.
        "original_inference_steps": len(rows),
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[prediction],
        "clip_sample": False,  # latents go beyond [-1, 1]
        "steps_offset": 1,  # nothing reads it, but pipelines warn of any other
    }
    # Stable Diffusion's schedule is written by name and two numbers, as in its own files; any
    # other VP schedule as a list of a thousand betas.
    first, last = (round(float(beta), 12) for beta in (betas[0], betas[-1]))
    found: Any = LCMScheduler(
        beta_schedule="scaled_linear", beta_start=first, beta_end=last, **shared
    )
    same = torch.allclose(found.alphas_cumprod.double(), table, rtol=1e-4, atol=0)
    return found if same else LCMScheduler(trained_betas=betas.tolist(), **shared)


def of_teacher(source: str, variant: str | None, parts: dict[str, Any]) -> Any:
    """The teacher's pipeline with a student's parts.

    A model without a file of the `variant` is read from its plain file.
    """
    from diffusers import DiffusionPipeline  # noqa: PLC0415

    return DiffusionPipeline.from_pretrained(source, variant=variant, use_safetensors=True, **parts)


def on_pixels(encoder: Any, parts: dict[str, Any]) -> Any:
    """A Stable Diffusion pipeline without an autoencoder: its latents are the images."""
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415

    # One of each, or the unpacking fails: Stable Diffusion's pipeline has room for one encoder.
    (tokenizer,), (text_encoder,) = encoder.tokenizers, encoder.models
    absent = {
        "vae": None,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    return StableDiffusionPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, **parts, **absent
    )
