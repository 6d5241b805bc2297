"""What a run leaves behind beside its log: summary.json, pictures, a page to read and a table on
the console.
"""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
import torch
from rich.console import Console
from rich.table import Table

from dmd2.diffusion.denoiser import Denoiser
from dmd2.evaluation.best import best
from dmd2.evaluation.pictures import picture
from dmd2.evaluation.samples import Sampling
from dmd2.evaluation.scoring import References, Scores, Scoring, device_of

TEMPLATE = Path(__file__).with_name("report.html.jinja")

PACKAGES = ("dmd2", "torch", "lightning", "hydra-core", "torchmetrics", "numpy")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def commit() -> str:
    """The git commit of this code, "-dirty" behind it where files were changed; "unknown" outside a
    checkout.
    """
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return "unknown"
    return found.stdout.strip() or "unknown"


def comparison(
    scoring: Scoring, teacher: Denoiser, guidance: float, student: Denoiser, path: Path
) -> None:
    """One picture: real samples, the teacher at each of its step counts, the student; the same
    noise for all.
    """
    is_grid = len(scoring.data.shape) == 3  # else points in a cloud
    num = min(100, scoring.batch_size) if is_grid else 2000
    numbered = scoring.numbered(device_of(student))
    shown = (
        {"real": _real(scoring, numbered.labels(range(num)).cpu())} if scoring.real_by_label else {}
    )
    makers: dict[str, Sampling] = {
        f"teacher, {maker.solver.num_steps} step{'s' * (maker.solver.num_steps > 1)}": maker
        for maker in scoring.teacher_makers(teacher, guidance)
    }
    makers["student"] = scoring.student_maker(student)
    for title, maker in makers.items():
        x0, _ = numbered.make(maker, range(num))
        shown[f"{title} ({maker.num_evaluations} NFE)"] = scoring.data.to_pixels(x0)
    picture(shown, path)


def _real(scoring: Scoring, labels: torch.Tensor) -> torch.Tensor:
    """A real training sample for each label, the class's samples in order and over again; any where
    it has none.
    """
    train, taken = scoring.data.train, dict.fromkeys(labels.tolist(), 0)
    rows = []
    for label in labels.tolist():
        mine = (
            (train.labels == label).nonzero()[0]
            if scoring.conditioner.num_classes
            else range(len(train))
        )
        rows.append(mine[taken[label] % len(mine)] if len(mine) else 0)
        taken[label] += 1
    return torch.as_tensor(scoring.data.shown(train.x[rows]))


def results(
    history: Sequence[Mapping[str, Any]], references: References, primary: str
) -> dict[str, Any]:
    """What a summary says of a run's scores: the student's first, and what to read them against."""
    students = history[-1]["scores"] if history else {}
    return {
        "primary": primary,
        "weights": next(iter(students), None),
        "metrics": next(iter(students.values()), {}),
        "best": best(history, primary),
        "students": students,
        "teacher": references.get("teacher", {}),
        "floor": references.get("floor", {}).get("real", {}),
        "baselines": references.get("baselines", {}) | references.get("start", {}),
    }


def print_table(summary: Mapping[str, Any], primary: str) -> None:
    """The scores of a summary beside their references, on the console."""
    title = f"{summary['experiment']}: {summary['status']} after {summary['iterations']} iterations"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    names = columns(summary, primary)
    table.add_column("samples", no_wrap=True)
    for name in names:
        table.add_column(
            name.replace("_", " "), justify="right", min_width=max(map(len, name.split("_")))
        )
    for label, scores in rows(summary):
        table.add_row(label, *(cell(scores, name) for name in names))
    Console().print(table)
    if found := summary.get("best"):
        print(f"best of {found['of']} scored: {primary} {found[primary]:.3g} of {found['weights']}")


def cell(scores: Scores, name: str) -> str:
    """A score as a table shows it; nothing where it was not made, e.g. with another number of
    samples.
    """
    return f"{scores[name]:.3g}" if name in scores else ""


def columns(summary: Mapping[str, Any], primary: str) -> list[str]:
    """The names of the metrics, the primary one first."""
    return sorted(summary["metrics"], key=lambda name: (name != primary, name))


def rows(summary: Mapping[str, Any]) -> list[tuple[str, Scores]]:
    """Labelled scores to read together: real data, baselines, the teacher, the student."""
    found: list[tuple[str, Scores]] = []
    if summary["floor"]:
        found.append(("real, held out", summary["floor"]))
    found += [(name.replace("_", " "), scores) for name, scores in summary["baselines"].items()]
    found += [(f"teacher, {n} NFE", scores) for n, scores in summary["teacher"].items()]
    found += [(f"student, {name}", scores) for name, scores in summary["students"].items()]
    return found


def write_page(folder: Path, summary: Mapping[str, Any], primary: str) -> None:
    """`report.html`: the table, the pictures and the configuration of a run on one page, without
    any server.
    """
    pictures = [p.name for p in (folder / "comparison.png", folder / "scores.png") if p.exists()]
    latest = sorted((folder / "samples").glob("*.png"))[-1:]
    environment = jinja2.Environment(autoescape=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
        summary=summary,
        names=columns(summary, primary),
        cell=cell,
        rows=rows(summary),
        pictures=pictures + [f"samples/{path.name}" for path in latest],
        config=(folder / "config.yaml").read_text(),
    )
    (folder / "report.html").write_text(page)
