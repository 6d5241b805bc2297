"""What a run leaves behind beside its log: summary.json, weights, pictures, a page to read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.distributed.device import peak_memory_bytes
from dmd2.distributed.fsdp import is_sharded
from dmd2.distributed.process_group import world_size
from dmd2.evaluation.health import state_in_words
from dmd2.evaluation.pictures import comparison
from dmd2.evaluation.scores import Scores, by_class, overall
from dmd2.io.files import write_bytes, write_hashed_json
from dmd2.io.hashed_tensors import save_hashed
from dmd2.runs.assemble import Parts
from dmd2.runs.build import device_for
from dmd2.runs.memory import measured_words
from dmd2.runs.page.run_page import run_page
from dmd2.runs.provenance import hardware, versions
from dmd2.runs.score_table import print_table, rows
from dmd2.training.record import Record


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
    baselines = references.get("baselines", {}) | references.get("start", {})
    of_classes = scores_by_class(record)
    is_timed = bool(config["callbacks"].get("speed"))
    head_start = config["critic_head_start"]
    return {
        "status": status,
        "error": record.error,
        "experiment": config["name"],
        "iterations": iterations,
        "generator_updates": -(-max(iterations - head_start, 0) // config["critic_updates"]),
        "wall_seconds": record.wall_seconds(),
        # None where nothing measures them.
        "training_seconds": record.training_seconds if is_timed else None,
        "images_per_second": record.images_per_second if is_timed else None,
        "peak_memory_bytes": peak_memory_bytes(),
        "devices": world_size(),
        "primary": record.primary,
        "weights": next(iter(students), None),
        "metrics": next(iter(students.values()), {}),
        "best": record.best(),
        "health": None if record.monitor is None else record.monitor.summary(),
        "students": students,
        "teacher": each(overall, references.get("teacher", {})),
        "floor": overall(references.get("floor", {}).get("real", {})),
        "baselines": each(overall, baselines),
        "by_class": of_classes,
        "class_names": {} if parts is None else names_of_classes(parts.data, of_classes),
        "versions": versions(),
        "hardware": hardware(),
        "commit": commit,
        "seed": config["seed"],
    }


def each(part: Callable[[Scores], Scores], found: Mapping[str, Scores]) -> dict[str, Scores]:
    """A part of each of some scores, by their names."""
    return {name: part(scores) for name, scores in found.items()}


def scores_by_class(record: Record) -> dict[str, Scores]:
    """The newest scores of single classes, by the labels of rows in the table of scores."""
    references = record.references
    of_classes = {
        "floor": by_class(references.get("floor", {}).get("real", {})),
        "baselines": {},
        "teacher": each(by_class, references.get("teacher", {})),
        "students": record.by_class,
    }
    return {label: scores for label, scores in rows(of_classes) if scores}


def names_of_classes(data: DataModule, scores: Mapping[str, Scores]) -> dict[str, str]:
    """The names of the classes that have scores, by number; not those that are called by it."""
    numbers = {key.partition("/")[0] for own in scores.values() for key in own}
    names = {str(i): name for i, name in enumerate(data.names_of_classes())}
    return {i: name for i, name in names.items() if i in numbers and i != name}


@contextmanager
def errors_of_the_disk(status: str) -> Iterator[None]:
    """Raise what a file that is written here raises, but after a failure.

    A full disk may then be why, and was named already.
    """
    try:
        yield
    except OSError:
        if status != "failed":
            raise


def save_networks(run: Finished) -> None:
    """checkpoints/student.safetensors, the first average, and critic.safetensors."""
    assert run.parts is not None
    module, folder = run.parts.module, run.folder / "checkpoints"
    name, student = next(iter(module.students().items()))
    metadata = {"weights": name, "teacher": run.parts.teacher.sha256}
    save_hashed(student.state_dict(), folder / "student.safetensors", metadata)
    save_hashed(module.critic.state_dict(), folder / "critic.safetensors")


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


def print_memory(run: Finished) -> None:
    """The measured peak of memory on the console, beside the planned one."""
    planned = run.summary["planned_memory_bytes"]
    if planned is not None:
        print(f"memory: {measured_words(run.summary['peak_memory_bytes'], planned)}")


def print_health(run: Finished) -> None:
    """Whether the run is healthy, and what stands against it, on the console."""
    if health := run.summary["health"]:
        stands = [verdict["name"] for verdict in health["verdicts"] if verdict["until"] is None]
        print(
            "health:",
            state_in_words(health["state"]),
            *(["for", ", ".join(stands)] if stands else []),
        )


def print_scores(run: Finished) -> None:
    """The table of scores on the console."""
    print_table(run.summary, run.record.primary)


def write_page(folder: Path, summary: Mapping[str, Any]) -> None:
    """report.html: scores, pictures, curves and the configuration, in one file."""
    write_bytes(folder / "report.html", run_page(folder, summary).encode())


OF_SCORES: tuple[Callable[[Finished], None], ...] = (draw_comparison, print_scores)
"""Outputs of a run that was scored, in order."""


def write_results(run: Finished) -> None:
    """All that a run leaves, in order; after a failure the summary, and the page if it trained.

    Raises OSError where a file cannot be written.
    """
    status = run.summary["status"]
    with errors_of_the_disk(status):
        write_hashed_json(run.folder / "summary.json", run.summary)
    if run.has_student:
        save_networks(run)
        for output in OF_SCORES if run.record.history else ():
            output(run)
    if run.summary["iterations"]:
        print_memory(run)
        print_health(run)
        with errors_of_the_disk(status):
            write_page(run.folder, run.summary)
            print(f"{status}: {run.folder}/report.html")
