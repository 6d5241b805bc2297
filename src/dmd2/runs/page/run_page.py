"""The page of a run, report.html: what it scored, made and logged, while it goes and at its end."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dmd2.evaluation.health import state_in_words
from dmd2.runs.config_file import read_config
from dmd2.runs.differences import changed
from dmd2.runs.memory import measured_words
from dmd2.runs.page.by_class import class_charts
from dmd2.runs.page.curves import add_references, charts, in_order
from dmd2.runs.page.pictures import grids_of, lone_picture, shown_grids
from dmd2.runs.page.render import render
from dmd2.runs.page.score_cells import Row, Table, table
from dmd2.runs.score_table import cell, columns, rows
from dmd2.training.callbacks.csv_logger import read_rows


def run_page(folder: Path, summary: Mapping[str, Any]) -> str:
    """The page of the run in a directory, as HTML; its log and its pictures are read there."""
    config = read_config(folder / "config.yaml")
    return render(
        "run.html.jinja",
        summary=summary,
        state_in_words=state_in_words,
        headline=headline(summary),
        table=score_table(summary),
        data={
            "charts": run_charts(folder, summary),
            "primary": summary["primary"],
            "grids": shown_grids(folder),
        },
        num_grids=len(grids_of(folder)),
        comparison=lone_picture(folder / "comparison.png"),
        steps=lone_picture(folder / "samples" / "steps.png"),
        commands=commands(folder, config, has_student=summary["status"] != "failed"),
        facts=facts(summary),
        changed=changed(config),
        config=OmegaConf.to_yaml(OmegaConf.create(config)),
    )


def headline(summary: Mapping[str, Any]) -> str:
    """How far the run is, and what it took."""
    parts = [
        f"{summary['iterations']:,} iterations",
        f"{summary['generator_updates']:,} generator updates",
        duration(summary["wall_seconds"]),
    ]
    if speed := summary["images_per_second"]:
        parts.append(f"{speed:,.4g} images a second")
    parts.append(f"seed {summary['seed']}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(42.3), duration(278), duration(90_000)
    ('42 s', '4 min 38 s', '25 h 0 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def score_table(summary: Mapping[str, Any]) -> Table:
    """The student beside teacher, baselines and real data."""
    names = columns(summary, summary["primary"])
    found = [
        Row(
            label,
            scores,
            {name: cell(scores, name) for name in names},
            competes=not label.startswith("real"),
            is_student=label.startswith("student"),
        )
        for label, scores in rows(summary)
    ]
    return table(names, found)


def run_charts(folder: Path, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The charts of the run's log, with a line for each reference."""
    logged = charts(read_rows(folder / "metrics.csv"))
    found = in_order([*logged, *class_charts(summary)], summary["primary"])
    others = [(label, scores) for label, scores in rows(summary) if not label.startswith("student")]
    add_references(found, others)
    return found


def commands(folder: Path, config: Mapping[str, Any], has_student: bool) -> list[tuple[str, str]]:
    """What one may type next, each with its purpose."""
    run = shlex.quote(str(folder))
    of_student = [
        ("draw samples", f"dmd2 sample run={run} num_images=100 out=samples"),
        ("score again", f"dmd2 evaluate run={run} num_samples=10000"),
        ("in Python", f"dmd2.load({str(folder)!r}).sample(16, seed=0)"),
    ]
    if "source" in config["teacher"]:  # a pipeline of diffusers, whose student is one, too
        of_student.insert(2, ("export for diffusers", f"dmd2 export run={run} out=student"))
    return [
        ("train on", f"the same command with paths.run={run} resume=auto"),
        *(of_student if has_student else []),
        ("compare runs", f"dmd2 compare runs={shlex.quote(str(folder.parent))} out=comparison"),
    ]


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Code, versions and hardware."""
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    planned = summary.get("planned_memory_bytes")  # not of an older version
    memory = measured_words(summary["peak_memory_bytes"], planned)
    return [
        ("commit", summary["commit"]),
        ("hardware", summary["hardware"]),
        ("memory", memory),
        ("versions", versions),
    ]
