"""Injects known faults into small runs, and counts which the health checks name.

usage: python experiments/health/bench.py out=DIR [seeds=0,1,2] [faults=NAME,...]

A run whose directory has a summary is not run again, but judged again from its log. Without
`faults` all are run, and healthy runs beside them; the table goes to OUT/table.md, the picture to
OUT/confusion.png.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from hydra import initialize_config_dir

from dmd2.config.check import of_train
from dmd2.config.folder import config_folder
from dmd2.evaluation.health import CHECKS
from dmd2.runs.health import monitor_of
from dmd2.runs.run import Run

sys.path.append(str(Path(__file__).parent))  # where `faults` is
SHORT = {
    "toy2d_dmd2": "max_iterations=300 log_every=10 health.every=50 callbacks.evaluation.every=100 "
    "metric.num_samples=1000 metric.teacher_steps=[18]",
    "digits_dmd2": "max_iterations=100 log_every=10 health.every=20 callbacks.evaluation.every=100 "
    "metric.num_samples=200",
    "digits_4step": "max_iterations=200 log_every=10 health.every=20 "
    "callbacks.evaluation.every=200 metric.num_samples=1000 metric.teacher_steps=[18]",
    "text2digits_dmd2": "max_iterations=20 log_every=10 metric=none "
    "teacher.pretrain.max_iterations=20",
}
"""How each experiment is shortened."""


@dataclass(frozen=True)
class Case:
    """A fault: what is typed for it, and the checks that name it; a healthy run has none."""

    experiment: str
    overrides: str
    named: frozenset[str]


def case(experiment: str, overrides: str, *named: str) -> Case:
    """A case of these checks."""
    return Case(experiment, overrides, frozenset(named))


DATA = "data._target_=faults."
CASES = {
    "healthy toy2d": case("toy2d_dmd2", ""),
    "healthy digits": case("digits_dmd2", ""),
    "healthy text": case("text2digits_dmd2", ""),
    "healthy four steps": case("digits_4step", ""),
    "critic frozen": case("toy2d_dmd2", "optimizer.critic.lr=0.0", "critic_frozen"),
    "critic lr / 20": case("toy2d_dmd2", "optimizer.critic.lr=1e-4", "critic_slow", "critic_lags"),
    "critic_updates=1": case("toy2d_dmd2", "critic_updates=1", "critic_slow", "critic_lags"),
    "no normaliser": case("toy2d_dmd2", "loss.generator.dm.floor=1e3", "normaliser_at_floor"),
    "generator lr x 30": case("toy2d_dmd2", "optimizer.generator.lr=6e-2", "generator_lr_too_high"),
    "critic lr x 30": case("toy2d_dmd2", "optimizer.critic.lr=6e-2", "critic_lr_too_high"),
    "GAN weight x 100": case("toy2d_dmd2", "loss.generator.gan.weight=3", "gan_too_strong"),
    "teacher of 5 %": case("toy2d_dmd2", "teacher.pretrain.max_iterations=75", "teacher_bad"),
    "labels shuffled": case("digits_dmd2", f"{DATA}ShuffledLabels", "labels_disagree"),
    "two classes gone": case("digits_dmd2", f"{DATA}TwoClassesGone", "classes_missing"),
    "a tenth of the data": case("digits_dmd2", f"{DATA}TenthOfData", "data_too_small"),
    "noised real inputs": case("digits_4step", "sampler=four_step_real", "inputs_not_simulated"),
    "guidance none": case("text2digits_dmd2", "teacher.guidance=1.0", "guidance_missing"),
    "guidance wrong sign": case("text2digits_dmd2", "teacher.guidance=-1.5", "guidance_missing"),
}
"""Faults by name."""


def run(name: str, seed: int, out: Path) -> list[dict[str, Any]]:
    """The verdicts of a run with a fault, which is trained where it was not yet."""
    found, folder = CASES[name], out / re.sub(r"\W+", "_", f"{name} {seed}")
    summary = folder / "summary.json"
    if not summary.exists():
        words = [f"experiment={found.experiment}", *SHORT[found.experiment].split()]
        words += [*found.overrides.split(), f"seed={seed}", f"paths.run={folder}"]
        words += [f"paths.runs={out}", f"paths.cache={out}/cache", "callbacks.progress=null"]
        if "faults." in found.overrides:
            # The teacher of the whole data: a run on others would train its own.
            words.append(f"teacher.weights={out}/digits_teacher.safetensors")
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            config = of_train([*words, "callbacks.samples=null"])
        trained = Run(config)
        try:
            trained.start()
        except FloatingPointError as error:  # such a run ends itself, with a line of its own
            print(f"{name}: {error}")
        if found.experiment == "digits_dmd2" and trained.parts is not None:  # of the healthy one
            kept = out / "digits_teacher.safetensors"
            if not kept.exists():
                kept.hardlink_to(trained.parts.teacher.path)
    return [verdict.as_dict() for verdict in monitor_of(folder).verdicts]


def first_two(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first two verdicts."""
    return verdicts[:2]


def is_right(name: str, verdicts: list[dict[str, Any]]) -> bool:
    """Whether a fault was named among the first two verdicts, or a healthy run not alarmed."""
    named = {verdict["name"] for verdict in first_two(verdicts)}
    return bool(CASES[name].named & named) if CASES[name].named else not verdicts


def write(found: dict[tuple[str, int], list[dict[str, Any]]], out: Path) -> None:
    """The table and the picture of all runs."""
    lines = ["| run | seed | right | first verdicts, since iteration |", "|---|---|---|---|"]
    for (name, seed), verdicts in found.items():
        said = ", ".join(f"{v['name']} {v['since']}" for v in first_two(verdicts)) or "none"
        lines.append(
            f"| {name} | {seed} | {'yes' if is_right(name, verdicts) else 'NO'} | {said} |"
        )
    for title, wanted in (("faults named", True), ("healthy runs without an alarm", False)):
        rows = [
            is_right(*row)
            for (name, _), v in found.items()
            if bool(CASES[name].named) == wanted
            for row in [(name, v)]
        ]
        lines.append(f"| {title} | | {sum(rows)} of {len(rows)} | |")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    names, checks = list(dict.fromkeys(name for name, _ in found)), [c.name for c in CHECKS]
    counts = [
        [
            sum(
                check in {v["name"] for v in first_two(verdicts)}
                for (n, _), verdicts in found.items()
                if n == name
            )
            / sum(n == name for n, _ in found)
            for check in checks
        ]
        for name in names
    ]
    figure, axes = plt.subplots(figsize=(9, 6))
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(checks)), checks, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    figure.tight_layout()
    figure.savefig(out / "confusion.png", dpi=110)


def main() -> None:
    """Run what is asked for, and write what came of it."""
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    out = Path(options["out"]).absolute()
    seeds = [int(seed) for seed in options.get("seeds", "0,1,2").split(",")]
    names = options["faults"].split(",") if "faults" in options else list(CASES)
    found = {(name, seed): run(name, seed, out) for seed in seeds for name in names}
    write(found, out)


if __name__ == "__main__":
    main()
