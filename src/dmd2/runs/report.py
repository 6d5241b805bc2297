"""What a run leaves behind beside its log: summary.json, weights, pictures, a page to read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from dmd2.config.check import Config
from dmd2.distributed.device import peak_memory_bytes
from dmd2.distributed.fsdp import is_sharded
from dmd2.evaluation.health.monitor import summary_of
from dmd2.evaluation.pictures import comparison, score_plot
from dmd2.io.files import write_bytes, write_hashed_json
from dmd2.io.tensors import save_weights
from dmd2.runs.assemble import Parts
from dmd2.runs.build import device_for
from dmd2.runs.provenance import versions
from dmd2.runs.score_table import cell, columns, print_table, rows
from dmd2.training.record import Record

TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True)
class Finished:
    """A run that has come to an end; `parts` are None where it ended before they were built."""

    config: Config
    folder: Path
    summary: Mapping[str, Any]
    record: Record
    parts: Parts | None

    @property
    def has_student(self) -> bool:
        """Whether there is a generator to show: trained, and unsharded in this process."""
        if self.summary["status"] == "failed" or self.parts is None:
            return False
        return bool(self.summary["iterations"]) and not is_sharded(self.parts.module)


def summarise(
    config: Config, record: Record, parts: Parts | None, status: str, commit: str
) -> dict[str, Any]:
    """The content of summary.json, on every end of a run."""
    module = None if parts is None else parts.module
    # A module that was never given to a trainer has no count.
    iterations = module.iteration if module is not None and module._trainer is not None else 0
    students = record.history[-1]["scores"] if record.history else {}
    references = record.references
    return {
        "status": status,
        "experiment": config["name"],
        "iterations": iterations,
        "generator_updates": -(-iterations // config["critic_updates"]),
        "wall_seconds": record.wall_seconds(),
        # None where nothing measures it.
        "images_per_second": record.images_per_second if config["callbacks"].get("speed") else None,
        "peak_memory_bytes": peak_memory_bytes(),
        "primary": record.primary,
        "weights": next(iter(students), None),
        "metrics": next(iter(students.values()), {}),
        "best": record.best(),
        "health": None if record.verdicts is None else summary_of(record.verdicts),
        "students": students,
        "teacher": references.get("teacher", {}),
        "floor": references.get("floor", {}).get("real", {}),
        "baselines": references.get("baselines", {}) | references.get("start", {}),
        "versions": versions(),
        "commit": commit,
        "seed": config["seed"],
    }


def write_summary(run: Finished) -> None:
    """summary.json; raises OSError where it cannot be written."""
    try:
        write_hashed_json(run.folder / "summary.json", run.summary)
    except OSError:
        if run.summary["status"] != "failed":  # else a full disk may be why, and was named already
            raise


def save_networks(run: Finished) -> None:
    """checkpoints/student.safetensors, the first average, and critic.safetensors."""
    assert run.parts is not None
    module, folder = run.parts.module, run.folder / "checkpoints"
    name, student = next(iter(module.students().items()))
    metadata = {"weights": name, "teacher": run.parts.teacher.sha256}
    save_weights(student, folder / "student.safetensors", metadata)
    save_weights(module.critic, folder / "critic.safetensors")


def draw_comparison(run: Finished) -> None:
    """comparison.png: real samples, the teacher's and the student's side by side."""
    assert run.parts is not None
    teacher, module = run.parts.teacher, run.parts.module
    student = next(iter(module.students().values()))
    for network in (teacher.denoiser, student):
        # Lightning brought what it knows to the CPU, and with LoRA the teacher's tensors too.
        network.to(device_for(run.config))
    path = run.folder / "comparison.png"
    comparison(run.parts.evaluator, teacher.denoiser, teacher.guidance, student, path)


def draw_scores(run: Finished) -> None:
    """scores.png: the primary score over the iterations."""
    record = run.record
    score_plot(record.history, record.references, record.primary, run.folder / "scores.png")


def print_scores(run: Finished) -> None:
    """The table of scores on the console."""
    print_table(run.summary, run.record.primary)


def write_page(run: Finished) -> None:
    """report.html: the table, the pictures and the configuration on one page."""
    folder, summary = run.folder, run.summary
    pictures = [p.name for p in (folder / "comparison.png", folder / "scores.png") if p.exists()]
    latest = sorted((folder / "samples").glob("*.png"))[-1:]
    page = jinja2.Environment(autoescape=True).from_string(TEMPLATE.read_text())
    text = page.render(
        summary=summary,
        names=columns(summary, run.record.primary),
        cell=cell,
        rows=rows(summary),
        pictures=pictures + [f"samples/{path.name}" for path in latest],
        config=(folder / "config.yaml").read_text(),
    )
    write_bytes(folder / "report.html", text.encode())
    print(f"{summary['status']}: {folder}/report.html")


OF_SCORES: tuple[Callable[[Finished], None], ...] = (draw_comparison, draw_scores, print_scores)
"""Outputs of a run that was scored, in order."""


def write_results(run: Finished) -> None:
    """All that a run leaves, in order; after a failure the summary alone."""
    write_summary(run)
    if run.has_student:
        save_networks(run)
        for output in OF_SCORES if run.record.history else ():
            output(run)
        write_page(run)
