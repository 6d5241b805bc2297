"""Exports a run's student as a diffusers pipeline: network, scheduler, model card, LoRA's weights.

diffusers loads the folder without this project, and samples as the run does, without guidance.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dmd2.config.check import Config
from dmd2.data.prompts import Captioned
from dmd2.io.files import locked, write_bytes
from dmd2.io.replace import replacing
from dmd2.io.tensors import let_others_read, save_tensors
from dmd2.nets.autoencoder import VAE
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.files import save_pipeline
from dmd2.nets.lora import layers, merged, products
from dmd2.runs.build import build
from dmd2.runs.export_sampling import Sampling, arguments_of, rows_of, scheduler_for
from dmd2.runs.load import Student
from dmd2.runs.model_card import card
from dmd2.runs.summary import read_summary
from dmd2.runs.teacher import conditioner_of


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
    check_empty(out)
    generator, section = student.generator, student.config["teacher"]
    here = f"draw its samples here: dmd2 sample run={student.run}"
    if not isinstance(generator, DiffusersNet):
        raise ValueError(
            f"{student.run} is of a {type(generator.model).__name__}, and only networks of "
            f"diffusers are exported; {here}"
        )
    summary = read_summary(student.run / "summary.json")
    student.read(weights)
    # A text encoder of a pipeline names it (`source`); the tiny one of the digits names none.
    encoder = section["conditioner"].get("encoder") or section
    # The variant is one of that pipeline's files; another pipeline may not have it.
    variant = encoder.get("variant") if source is None else None
    source = source or encoder.get("source")
    try:
        parts = {
            generator.folder: merged_network(generator),
            "scheduler": scheduler_for(generator, student.sampler),
            **tuned_encoders(section),
        }
        pipeline = (
            on_pixels(build(encoder), parts)
            if source is None
            else of_teacher(source, variant, parts)
        )
    except ValueError as error:
        raise ValueError(f"{student.run}: {error}; {here}") from error
    # Pipelines of PixArt and DiT read no LoRA.
    has_lora = any(layers(generator.model)) and hasattr(pipeline, "load_lora_weights")
    sampling = sampling_of(student, generator, encoder, parts)
    chosen = weights or student.names[0]
    readme = card(student.config, summary, chosen, sampling, source, variant, has_lora)
    # Resolved: the folder takes its name by a rename, and a link or "." cannot be renamed over.
    place = out.resolve()
    # The lock's file lies there as well.
    with locked(place):
        check_empty(out)  # again: another process may have written it
        with replacing(place) as partial:
            write(partial, pipeline, generator if has_lora else None, readme)
    return (
        f"{out}: a {type(pipeline).__name__} at the timesteps "
        f"{sampling.rows}{', and its LoRA' * has_lora}; see README.md"
    )


def tuned_encoders(section: Config) -> dict[str, Any]:
    """The text encoders of a teacher with LoRAs, which may have changed them."""
    if not section.get("loras"):
        return {}
    encoder = build(conditioner_of(section)["encoder"])
    models = encoder.models if encoder.takes_loras else []
    return {f"text_encoder{f'_{i}' * (i > 1)}": x for i, x in enumerate(models, start=1)}


def sampling_of(
    student: Student, generator: DiffusersNet, encoder: Config, parts: dict[str, Any]
) -> Sampling:
    """How an exported student is sampled, for its card."""
    codec = getattr(student.data, "codec", None)
    resolution = codec.resolution if isinstance(codec, VAE) else None
    return Sampling(
        rows_of(generator, student.sampler),
        generator.folder,
        type(parts["scheduler"]).__name__,
        arguments_of(generator, student.sampler, resolution, encoder.get("length")),
        student.data.buckets if isinstance(student.data, Captioned) else (),
    )


def check_empty(out: Path) -> None:
    """Raise ValueError where a folder, or a file, is there that is not empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty; name another folder: out=DIR")


def write(folder: Path, pipeline: Any, lora: DiffusersNet | None, readme: str) -> None:
    """Write a new folder: a pipeline, the LoRA of a generator where it has one, and README.md.

    Raises OSError where it cannot be written.
    """
    try:
        save_pipeline(pipeline, folder)
    except SafetensorError as error:  # a full disk, in the library's own words
        raise OSError(f"{folder} could not be written: {error}") from error
    for path in folder.rglob("*.safetensors"):
        let_others_read(path)
    if lora is not None:
        named = {f"{lora.folder}.{name}": x for name, x in products(lora.model).items()}
        save_tensors(named, folder / "lora" / "pytorch_lora_weights.safetensors", {"format": "pt"})
    write_bytes(folder / "README.md", readme.encode())


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

    pipeline = DiffusionPipeline.from_pretrained(
        source, variant=variant, use_safetensors=True, **parts
    )
    if "is_distilled" in pipeline.config:  # FLUX.2's, which then never guides
        pipeline.register_to_config(is_distilled=True)
    return pipeline


def on_pixels(encoder: Any, parts: dict[str, Any]) -> Any:
    """A Stable Diffusion pipeline without an autoencoder: its latents are the images.

    Raises ValueError for a transformer, whose pipelines want more than one encoder.
    """
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415

    if "unet" not in parts:
        raise ValueError("no pipeline is named for its encoders and autoencoder: type source=DIR")
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
