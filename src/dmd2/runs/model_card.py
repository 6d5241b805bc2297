"""The card of an exported student: README.md with a YAML head, where it comes from, how it is sampled, its scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import OmegaConf

from dmd2.config.check import Config
from dmd2.runs.report import cell, columns, rows


def card(
    config: Config, summary: Mapping[str, Any], weights: str, timesteps: list[int],
    source: str | None, variant: str | None, has_lora: bool,
) -> str:  # fmt: skip
    """The text for a run's `weights`, made at `timesteps`; `source` is the teacher's pipeline, if it has one.

    variant  Of its files, those that the run read.
    """
    section, scores = config["teacher"], summary["students"].get(weights, {})
    # fmt: off
    provenance = {
        "experiment": config["name"], "weights": weights, "timesteps": timesteps, "commit": summary["commit"],
        "iterations": summary["iterations"], "seed": summary["seed"], "metrics": scores,
    }
    # fmt: on
    head = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["dmd2", "distillation"],
        **({"license": section["license"]} if section.get("license") else {}),
        **({"base_model": source} if source and not Path(source).exists() else {}),
        "dmd2": provenance,
    }
    template = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True).from_string(CARD)
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
    return f"{section['guidance']:g}" + (f", away from {json.dumps(negative)}" if negative is not None else "")


CARD = """---
{{ head }}---
# {{ experiment }}

A student of {{ timesteps | length }} step{{ "s" if timesteps | length > 1 }}, made by distribution matching \
distillation (DMD2) from {{ origin }}. In `DIR`, this folder:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("DIR"{{ "" if source else ", vae=None" }})
images = pipe(
    ["PROMPT"], timesteps={{ timesteps }}, guidance_scale=0.0{{ "" if source else ', output_type="latent"' }}
).images
```

The timesteps are those it was trained at{{ "" if source else "; its latents are the images, in [-1, 1]" }}.
Guidance ({{ guidance }}) is in the weights, so it is switched off.
{% if has_lora %}

`unet/` has the LoRA's weights in it. `lora/` has them alone, for the teacher's own U-Net:

```python
from diffusers import DiffusionPipeline, LCMScheduler

pipe = DiffusionPipeline.from_pretrained("{{ source or "TEACHER" }}"{{ variant and ', variant="%s"' % variant }})
pipe.scheduler = LCMScheduler.from_pretrained("DIR/scheduler")
pipe.load_lora_weights("DIR/lora")
```
{% endif %}

## Where it comes from

{{ summary.iterations }} iterations ({{ summary.generator_updates }} generator updates), {{ summary.status }};
weights {{ weights }}; seed {{ summary.seed }}; commit {{ summary.commit }} of dmd2.
{{ "The teacher's licence, %s, holds for this student too." | format(license) if license else
"The run names no licence of its teacher." }}

{% if names %}
| samples |{% for name in names %} {{ name }} |{% endfor %}

|---|{% for name in names %}---|{% endfor %}

{% for label, scores in rows %}
| {{ label }} |{% for name in names %} {{ cell(scores, name) }} |{% endfor %}

{% endfor %}
{% endif %}
"""
