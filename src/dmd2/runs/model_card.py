"""The model card (README.md) of an exported student: origin, how to sample, scores, licence."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import OmegaConf

from dmd2.config.check import Config
from dmd2.runs.build import build_guidance
from dmd2.runs.export_sampling import Sampling
from dmd2.runs.markdown import literal, text
from dmd2.runs.score_table import cell, columns, rows

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
NO_PIPELINE = "a U-Net that was trained for this run"
"""What a student of no pipeline comes from."""


def card(
    config: Config,
    summary: Mapping[str, Any],
    weights: str,
    sampling: Sampling,
    source: str | None,
    variant: str | None,
    has_lora: bool,
) -> str:
    """The card's Markdown, with YAML metadata on top as the Hugging Face hub reads it.

    summary    The content of the run's summary.json.
    weights    Which of the run's weights were exported.
    sampling   How the student is sampled.
    source     The teacher's pipeline; None where the teacher has none.
    variant    Of the pipeline's files, those that the run read.
    has_lora   Whether LoRA's weights were exported by themselves, too.
    """
    # A generator's file that is not the run's own has no scores in the summary.
    section, scores = config["teacher"], summary["students"].get(weights, {})
    is_by_class = "encoder" not in section["conditioner"]
    provenance = {
        "experiment": config["name"],
        "weights": weights,
        "timesteps": sampling.rows,
        "commit": summary["commit"],
        "iterations": summary["iterations"],
        "seed": summary["seed"],
        "metrics": scores,
    }
    metadata = {
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation" if is_by_class else "text-to-image",
        "tags": ["dmd2", "distillation"],
        # The keys are the hub's; `license` and `base_model` must be absent rather than empty.
        **({"license": section["license"]} if section.get("license") else {}),
        # A local folder is no model on the hub.
        **({"base_model": source} if source and not Path(source).exists() else {}),
        "dmd2": provenance,  # ours: the hub keeps keys that it does not know
    }
    loras = section.get("loras") or []
    # The folder of a model in one file is the cache's, and its name says nothing.
    origin = section.get("file") or source or NO_PIPELINE
    # trim_blocks: a line of the template that holds only a tag leaves no line in the card.
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True)
    # Names are other people's, and stay text: in Markdown, and in the code that a reader copies.
    environment.filters |= {"text": text, "literal": literal}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        metadata=OmegaConf.to_yaml(OmegaConf.create(metadata)),
        summary=summary,
        **provenance,
        license=section.get("license"),
        guidance=guidance_of(section),
        origin=origin,
        network=sampling.network,
        scheduler=sampling.scheduler,
        call=", ".join(f"{name}={value!r}" for name, value in sampling.call.items()),
        is_by_class=is_by_class,
        loras=[(Path(lora["source"]).name, lora.get("scale", 1.0)) for lora in loras],
        source=source,  # None in the template: a pipeline without an autoencoder, on pixels
        variant=variant or "",
        sizes=[" x ".join(map(str, size)) for size in sampling.sizes],
        has_lora=has_lora,
        names=columns(summary, summary["primary"]),
        cell=cell,
        rows=rows(summary),
    )


def guidance_of(section: Config) -> str:
    """The scale of classifier-free guidance, with the negative prompt if any; empty without it."""
    # An empty negative prompt counts: it is embedded, where null may be zeros (SDXL).
    negative = section.get("negative")
    if (scale := build_guidance(section)) == 1:
        return ""
    return f"{scale:g}" + (f", away from {json.dumps(negative)}" if negative is not None else "")
