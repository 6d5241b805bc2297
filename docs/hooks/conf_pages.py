"""Pages about conf/: a page a group with its choices and their keys, and the tables of recipes."""

import re
from itertools import groupby
from pathlib import Path

from yaml_comments import Choice, Key, read

CONF = Path(__file__).parents[2] / "conf"
GROUPS = {
    "experiment": "Experiments: overlays on train.yaml that put the other groups together.",
    "teacher": "Teachers: network, noise schedule, conditioner, and training or file.",
    "data": "Data modules: what the discriminator, the scores and a teacher's training read.",
    "loss": "Objectives: the terms of either network with their weights, and noised views.",
    "lora": "Which networks are trained as LoRA.",
    "sampler": "The generator's sampling steps, and what it is trained on at each.",
    "optimizer": "The optimizers of generator and critic, and their learning-rate schedule.",
    "metric": "Scores: detectors, metrics, how many samples, and what they are compared with.",
    "callbacks": "What watches a run: scores, sample grids, checkpoints, throughput.",
    "health": "Whether a run is watched for what may be wrong, and what ends it.",
    "logger": "Where numbers are logged.",
    "trainer": "Devices, precision and parallelism.",
    "paths": "Where runs and cached files lie.",
    "launcher": "How the runs of a sweep are started: here, or as Slurm jobs.",
    "recipe": "What `dmd2 prepare` can make (`recipe=NAME`).",
    "part": "What `dmd2 benchmark` can measure (`part=NAME`).",
}
"""What a group is, in the order of the navigation; a group that is not named here comes last."""
FAMILIES = {
    "digits": "Handwritten digits, on a CPU",
    "toy2d": "Points in the plane, on a CPU",
    "text2digits": "Captions to digits, on a CPU",
    "cifar10": "CIFAR-10",
    "ffhq64": "FFHQ at 64x64",
    "imagenet64": "ImageNet at 64x64",
    "sd15": "Stable Diffusion 1.5",
    "sdxl": "Stable Diffusion XL",
}
"""Headings of experiments by the first word of their names; another word is its own heading."""


def pages() -> dict[str, str]:
    """Path in docs/ -> Markdown, in the order of the navigation."""
    folders = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    # A new group has a page before anybody has written what it is.
    names = [*(name for name in GROUPS if name in folders), *sorted(set(folders) - set(GROUPS))]
    found = {name: choices(name) for name in names}
    rows = [
        f"| [`{name}`]({name}.md) | {GROUPS.get(name, '')} | {_names(found[name])} |"
        for name in names
    ]
    train, site = read(CONF / "train.yaml"), read(CONF / "site.template.yaml")
    overview = [
        "# Configuration\n",
        "`dmd2 train experiment=NAME KEY=VALUE ...` composes one configuration with",
        "[Hydra](https://hydra.cc): a choice of each group below, and the keys of `train.yaml`. An",
        "experiment overrides both; the command line overrides the experiment.",
        "`dmd2 train --cfg job experiment=NAME` prints the result and stops. A key that nothing",
        "reads is refused by name.\n",
        "| group | what it is | choices |\n|---|---|---|",
        *rows,
        "\n## Keys of train.yaml { #train }\n",
        f"{text(train.about)}\n",
        key_table(train.keys),
        "\n## The file of a cluster { #site-template }\n",
        f"`conf/site.template.yaml`. {text(site.about)}\n",
        key_table(site.keys),
    ]
    return {
        "reference/conf/index.md": "\n".join(overview) + "\n",
        **{f"reference/conf/{name}.md": group_page(name, found[name]) for name in names},
    }


def choices(group: str) -> list[Choice]:
    """The YAML files of a group, by name."""
    return [read(path) for path in sorted((CONF / group).glob("*.yaml"))]


def group_page(group: str, found: list[Choice]) -> str:
    """A group: a table of its choices, then each with its keys and its file."""
    lines = [f"# {group}\n", f"{GROUPS.get(group, '')}\n", "| choice | what it is |\n|---|---|"]
    lines += [f"| [`{c.name}`](#{c.name}) | {cell(c.sentence)} |" for c in found]
    for choice in found:
        lines.append(f"\n## {choice.name} {{ #{choice.name} }}\n\n{text(choice.about)}\n")
        # Not merged here: what Hydra would compose is said by `dmd2 train --cfg job`.
        if choice.builds_on:
            names = ", ".join(f"[`{name}`](#{name})" for name in choice.builds_on)
            lines.append(f"Builds on {names}; only what differs is listed.\n")
        if choice.keys:
            lines.append(key_table(choice.keys))
        # The file as it is, folded away: keys alone do not show what belongs together.
        indented = "\n".join(f"    {line}" for line in choice.text.splitlines())
        lines.append(
            f'\n??? note "conf/{group}/{choice.name}.yaml"\n    ```yaml\n{indented}\n    ```'
        )
    return "\n".join(lines) + "\n"


def experiments() -> str:
    """The tables of recipes.md: experiments by family, with what their files say."""
    lines = list[str]()
    found = sorted(choices("experiment"), key=_place)
    for family, members in groupby(found, lambda choice: choice.name.partition("_")[0]):
        lines.append(
            f"\n### {FAMILIES.get(family, family)}\n\n| experiment | what it is |\n|---|---|"
        )
        lines += [
            f"| [`{c.name}`](../conf/experiment/{c.name}.yaml) | {cell(c.about)} |" for c in members
        ]
    return "\n".join(lines) + "\n"


def _place(choice: Choice) -> tuple[int, str]:
    names, family = list(FAMILIES), choice.name.partition("_")[0]
    # Small ones that run on a CPU first, as FAMILIES lists them.
    return (names.index(family) if family in names else len(names)), choice.name


def key_table(keys: list[Key]) -> str:
    """A table of keys, defaults and comments; what a key builds is linked to its documentation."""
    rows = [f"| `{key.path}` | {_value(key)} | {cell(key.comment)} |" for key in keys]
    return "\n".join(["| key | default | |\n|---|---|---|", *rows])


def _value(key: Key) -> str:
    name = re.fullmatch(r"dmd2\.[\w.]+", key.value)
    if name and key.path.endswith("_target_"):
        # Optional: a partial or a classmethod may have no heading of its own in the API.
        return f'<autoref identifier="{key.value}" optional><code>{key.value}</code></autoref>'
    if key.value == "???":
        return "*must be given*"
    # Two backquotes, since a value may hold one.
    return f"`` {key.value} ``".replace("|", "\\|")


def _names(found: list[Choice]) -> str:
    names = [f"`{choice.name}`" for choice in found]
    return ", ".join(names if len(names) < 20 else [*names[:3], f"and {len(names) - 3} more"])


def text(comment: str) -> str:
    """A comment as Markdown: only its `code` is markup."""
    # Entities, since a backslash is not read before every one of these.
    parts = comment.split("`")
    for i in range(0, len(parts), 2):  # every second part stands between backquotes
        parts[i] = re.sub(r"[<>\\*_$\[\]]", lambda m: f"&#{ord(m[0])};", parts[i])
    return "`".join(parts)


def cell(comment: str) -> str:
    """A comment inside a table."""
    return text(comment).replace("|", "\\|")
