"""Exports a run's student as a diffusers pipeline: network, scheduler, model card, LoRA's weights.

diffusers loads the folder without this project, and samples as the run does, without guidance.
"""

from pathlib import Path
from typing import Any

from dmd2.io.tensors import let_others_read, save_tensors
from dmd2.nets.autoencoder import VAE
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.lora import layers, merged, products
from dmd2.nets.unet import UNet
from dmd2.runs.build import build
from dmd2.runs.export_sampling import arguments_of, rows_of, scheduler_for
from dmd2.runs.load import Student
from dmd2.runs.model_card import card
from dmd2.runs.summary import read_summary


def export(student: Student, weights: str | None, source: str | None, out: Path) -> str:
    """Write the folder `out`; returns a line on what is in it.

    weights  One of the run's averages, "raw", or a generator's .safetensors; None takes the first
             average.
    source   The teacher's pipeline, a folder or a name on the hub, for all but network and
             scheduler; None takes the run's own. A U-Net with neither gets a pipeline without an
             autoencoder, on pixels.

    Raises ValueError where no pipeline of diffusers samples as the student does, or `out` is not
    empty.
    """
    generator, sampler = student.generator, student.sampler
    here = f"draw its samples here: dmd2 sample run={student.run}"
    if not isinstance(generator, DiffusersNet):
        raise ValueError(
            f"{student.run} is of a {type(generator.model).__name__}, and only networks of "
            f"diffusers are exported; {here}"
        )
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; name another folder: out=DIR")
    summary = read_summary(student.run / "summary.json")
    student.read(weights)
    section = student.config["teacher"]
    # A text encoder of a pipeline names it (`source`); the tiny one of the digits names none.
    encoder = section["conditioner"].get("encoder") or section
    # The variant is one of that pipeline's files; another pipeline may not have it.
    variant = encoder.get("variant") if source is None else None
    source = source or encoder.get("source")
    kind = "unet" if isinstance(generator, UNet) else "transformer"
    try:
        parts = {kind: merged_network(generator), "scheduler": scheduler_for(generator, sampler)}
    except ValueError as error:
        raise ValueError(f"{student.run}: {error}; {here}") from error
    if source is not None:
        pipeline = of_teacher(source, variant, parts)
    elif kind == "unet":
        pipeline = on_pixels(build(encoder), parts)
    else:
        raise ValueError(
            f"{student.run} names no pipeline for encoders and autoencoder of its student; type "
            f"source=DIR, or {here}"
        )
    if "is_distilled" in pipeline.config:  # FLUX.2's: it then never guides
        pipeline.register_to_config(is_distilled=True)
    pipeline.save_pretrained(out)
    for path in out.rglob("*.safetensors"):
        let_others_read(path)
    # Pipelines of PixArt and DiT read no LoRA.
    has_lora = any(layers(generator.model)) and hasattr(pipeline, "load_lora_weights")
    if has_lora:
        named = {
            f"{kind}.{name}": x.detach().cpu().contiguous()
            for name, x in products(generator.model).items()
        }
        save_tensors(named, out / "lora" / "pytorch_lora_weights.safetensors", {"format": "pt"})
    chosen = weights or student.names[0]
    codec = getattr(student.data, "codec", None)
    resolution = codec.resolution if isinstance(codec, VAE) else None
    call = arguments_of(generator, sampler, resolution, encoder.get("length"))
    rows = rows_of(generator, sampler)
    scheduler = type(parts["scheduler"]).__name__
    (out / "README.md").write_text(
        card(
            student.config,
            summary,
            chosen,
            rows,
            source,
            variant,
            has_lora,
            kind,
            scheduler,
            call,
        )
    )
    return (
        f"{out}: a {type(pipeline).__name__} at the timesteps "
        f"{rows}{', and its LoRA' * has_lora}; see README.md"
    )


def merged_network(generator: DiffusersNet) -> Any:
    """The student's network, with LoRA's products added to the frozen weights."""
    # A new network of the same config: the student's own layers may be peft's.
    network = type(generator.model).from_config(generator.model.config)
    network.load_state_dict(merged(generator.model))
    return network.eval()


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
