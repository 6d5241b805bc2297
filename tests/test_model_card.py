"""Names of strangers on the model card are text: no markup, no heading, no cell, no code."""

import ast
import re

import pytest
from omegaconf import OmegaConf

from dmd2.runs.export_sampling import Sampling
from dmd2.runs.model_card import card

EVIL = "<img src=x onerror=alert(1)>|\n# forged\n```\n[a](javascript:b)"
SOURCE = 'evil/x")\nimport os; os.system("id") #'


@pytest.mark.parametrize("source", [SOURCE, EVIL, "a/b"])
def test_no_name_becomes_markup_or_code(source: str) -> None:
    summary = {
        "commit": EVIL,
        "iterations": 1,
        "generator_updates": 1,
        "seed": 0,
        "status": EVIL,
        "students": {EVIL: {EVIL: 1.0}},
        "metrics": {EVIL: 1.0},
        "primary": EVIL,
        "floor": {},
        "baselines": {EVIL: {EVIL: 1.0}},
        "teacher": {},
    }
    section = {"conditioner": {"encoder": {}}, "guidance": 3.0, "negative": EVIL, "license": EVIL}
    how = Sampling([999], "unet", "LCMScheduler", {"timesteps": [999]})
    page = card({"name": EVIL, "teacher": section}, summary, EVIL, how, source, source, True)
    _, head, body = re.split(r"^---$", page, maxsplit=2, flags=re.MULTILINE)
    assert OmegaConf.create(head).dmd2.experiment == EVIL
    headings = re.findall(r"^#.*", body, re.MULTILINE)
    assert len(headings) == 2 + ("## Scores" in body) and headings[0].startswith("# &lt;img")
    blocks = re.findall(r"^```python\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2 and body.count("\n```") == 4
    for block in blocks:
        imported = [x.module for x in ast.walk(ast.parse(block)) if isinstance(x, ast.ImportFrom)]
        assert imported == ["diffusers"] and "import os" not in [line.strip() for line in block]
        assert not any(isinstance(x, ast.Import) for x in ast.walk(ast.parse(block)))
    prose = re.sub(r"^```python\n.*?^```$", "", body, flags=re.MULTILINE | re.DOTALL)
    assert "<" not in prose and "](" not in prose.replace("\\](", "")
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
