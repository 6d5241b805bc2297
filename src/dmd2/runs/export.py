"""A run's student as a folder that diffusers loads without this project: a pipeline, its card,
LoRA's weights apart.

diffusers' LCM scheduler samples it at the trained rows: denoise, re-noise with fresh noise,
denoise; no guidance.
"""

from pathlib import Path
from typing import Any

import torch

from dmd2.diffusion.denoiser import Prediction
from dmd2.diffusion.schedules import VP
from dmd2.io.files import read_json
from dmd2.io.tensors import save_tensors
from dmd2.nets.lora import layers, merged, products
from dmd2.nets.unet import PREDICTIONS, UNet
from dmd2.runs.build import build
from dmd2.runs.load import Student
from dmd2.runs.model_card import card


def export(student: Student, weights: str | None, source: str | None, out: Path) -> str:
    """Write the folder `out`, and say in a line what is in it.

    source  The teacher's pipeline, a folder or a name on the hub, for all but U-Net and scheduler;
            None is where the
            run's text encoder comes from. A run with neither gets a pipeline without an
            autoencoder, on pixels.
    Raises ValueError where the student is no U-Net of diffusers, or there is something in `out`.
    """
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
    summary = read_json(student.run / "summary.json")
    student.read(weights)
    rows = generator.schedule.row_of_time(torch.tensor(student.sampler.times)).tolist()
    encoder = student.config["teacher"]["conditioner"]["encoder"]
    variant = encoder.get("variant") if source is None else None
    source = source or encoder.get("source")
    parts = {
        "unet": whole(generator),
        "scheduler": scheduler(generator.schedule, generator.prediction, rows),
    }
    pipeline = (
        on_pixels(build(encoder), parts) if source is None else of_teacher(source, variant, parts)
    )
    pipeline.save_pretrained(out)
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


def whole(generator: UNet) -> Any:
    """The network of a student as diffusers knows it, LoRA added to the weights that it lies on."""
    network = type(generator.model).from_config(generator.model.config)
    network.load_state_dict(merged(generator.model))
    return network.eval()


def scheduler(schedule: VP, prediction: Prediction, rows: list[int]) -> Any:
    """diffusers' LCM scheduler on a student's noise levels.

    By `original_inference_steps` its own four timesteps are 999, 749, 499 and 249; the one at 399
    it has to be told.
    """
    from diffusers import LCMScheduler  # noqa: PLC0415

    table = schedule.alphas_cumprod.cpu()
    betas = 1 - table / torch.cat([table.new_ones(1), table[:-1]])
    shared = {
        "num_train_timesteps": len(table),
        "original_inference_steps": len(rows),
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[prediction],
        "clip_sample": False,
        "steps_offset": 1,  # nothing reads it, but pipelines warn of any other
    }
    first, last = (round(float(beta), 12) for beta in (betas[0], betas[-1]))
    found: Any = LCMScheduler(
        beta_schedule="scaled_linear", beta_start=first, beta_end=last, **shared
    )
    same = torch.allclose(found.alphas_cumprod.double(), table, rtol=1e-4, atol=0)
    return found if same else LCMScheduler(trained_betas=betas.tolist(), **shared)


def of_teacher(source: str, variant: str | None, parts: dict[str, Any]) -> Any:
    """The teacher's pipeline with a student's parts; what has no file of the `variant` is read from
    the plain one.
    """
    from diffusers import DiffusionPipeline  # noqa: PLC0415

    return DiffusionPipeline.from_pretrained(source, variant=variant, use_safetensors=True, **parts)


def on_pixels(encoder: Any, parts: dict[str, Any]) -> Any:
    """A Stable Diffusion pipeline without an autoencoder: its latents are the images."""
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415

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
