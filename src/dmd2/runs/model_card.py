"""The model card of an exported student: where it comes from, how it is sampled, its scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import OmegaConf

from dmd2.config.check import Config
from dmd2.runs.score_table import cell, columns, rows

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def card(
    config: Config,
    summary: Mapping[str, Any],
    weights: str,
    timesteps: list[int],
    source: str | None,
    variant: str | None,
    has_lora: bool,
) -> str:
    """The text for a run's `weights`, made at `timesteps`; `source` is the teacher's pipeline, if
    it has one.

    variant  Of its files, those that the run read.
    """
    section, scores = config["teacher"], summary["students"].get(weights, {})
    provenance = {
        "experiment": config["name"],
        "weights": weights,
        "timesteps": timesteps,
        "commit": summary["commit"],
        "iterations": summary["iterations"],
        "seed": summary["seed"],
        "metrics": scores,
    }
    head = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["dmd2", "distillation"],
        **({"license": section["license"]} if section.get("license") else {}),
        **({"base_model": source} if source and not Path(source).exists() else {}),
        "dmd2": provenance,
    }
    template = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True).from_string(
        TEMPLATE.read_text()
    )
    return template.render(
        head=OmegaConf.to_yaml(OmegaConf.create(head)),
        summary=summary,
        **provenance,
        license=section.get("license"),
        guidance=guidance_of(section),
        origin=source or "a U-Net that was trained for this run",
        source=source,
        variant=variant or "",
        has_lora=has_lora,
        names=columns(summary, summary["primary"]),
        cell=cell,
        rows=rows(summary),
    )


def guidance_of(section: Config) -> str:
    """How the teacher was guided, in words."""
    negative = section.get("negative")
    return f"{section['guidance']:g}" + (
        f", away from {json.dumps(negative)}" if negative is not None else ""
    )
