"""Injects known faults into small runs, and counts which the health checks name.

usage: python experiments/health/bench.py out=DIR [seeds=0,1,2] ["faults=NAME;NAME"]

A run with a fault ends at the report that names it. One whose directory has a summary is not run
again, but judged again from its log. Without `faults` all are run, and healthy runs beside them;
the tables go to OUT/table.md, the picture to OUT/confusion.png.
"""

import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
from hydra import initialize_config_dir

from dmd2.config.check import Config, of_train
from dmd2.config.folder import config_folder
from dmd2.evaluation.health import CHECKS, Verdict
from dmd2.runs.health import monitor_of
from dmd2.runs.run import Run

sys.path.append(str(Path(__file__).parent))  # where `faults` is
Verdicts = dict[tuple[str, int], list[Verdict]]
"""Of a run, by the name of its case and its seed."""
DIGITS = "log_every=10 health.every=20 callbacks.evaluation.every=100 "
TEXT = (
    "max_iterations=160 log_every=10 health.every=30 metric=none optimizer.lr_factor.decay_from=1"
)
SHORT = {
    "toy2d_dmd2": "max_iterations=300 log_every=10 health.every=50 callbacks.evaluation.every=100 "
    "metric.num_samples=1000 metric.teacher_steps=[18]",
    "digits_dmd2": DIGITS + "max_iterations=150 metric.num_samples=200",
    "digits_dmd": "max_iterations=40 log_every=4 health.every=8 callbacks.evaluation.every=40 "
    "metric.num_samples=200 pairs.num_pairs=500",
    "digits_4step": DIGITS + "max_iterations=250 metric.num_samples=1000 metric.teacher_steps=[18]",
    "digits_dp_dmd": DIGITS
    + "max_iterations=250 metric.num_samples=1000 metric.teacher_steps=[18] pairs.num_pairs=500",
    "text2digits_dmd2": TEXT + " teacher.pretrain.max_iterations=600",
    "text2digits_dit": TEXT + " teacher.pretrain.max_iterations=1200",
}
"""How each experiment is shortened."""


@dataclass(frozen=True)
class Case:
    """A fault: what is typed for it, and the checks that name it; a healthy run has none.

    Where the overrides say {teacher} it is the file of the healthy run's teacher: a run on other
    data would train its own.
    """

    experiment: str
    overrides: str
    named: frozenset[str]


def case(experiment: str, overrides: str = "", *named: str) -> Case:
    """A case of these checks."""
    return Case(experiment, overrides, frozenset(named))


DATA = "teacher.weights={teacher} data._target_=faults."
CASES = {
    "healthy toy2d": case("toy2d_dmd2"),
    "healthy digits": case("digits_dmd2"),
    "healthy digits, DMD": case("digits_dmd"),
    "healthy four steps": case("digits_4step"),
    "healthy four steps, SiDA": case("digits_4step", "loss=sida"),
    "healthy four steps, DP-DMD": case("digits_dp_dmd"),
    "healthy text": case("text2digits_dmd2"),
    "healthy text, v": case("text2digits_dmd2", "teacher=text_digits_v sampler=one_step"),
    "healthy text, flow": case("text2digits_dmd2", "teacher=text_digits_flow sampler=one_step"),
    "healthy text, transformer": case("text2digits_dit"),
    "critic frozen": case("toy2d_dmd2", "optimizer.critic.lr=0.0", "critic_frozen"),
    "critic lr / 20": case("toy2d_dmd2", "optimizer.critic.lr=1e-4", "critic_slow", "critic_lags"),
    "critic_updates=1": case("toy2d_dmd2", "critic_updates=1", "critic_slow", "critic_lags"),
    "no normaliser": case("toy2d_dmd2", "loss.generator.dm.floor=1e3", "normaliser_at_floor"),
    "generator lr x 30": case("toy2d_dmd2", "optimizer.generator.lr=6e-2", "generator_lr_too_high"),
    "critic lr x 30": case("toy2d_dmd2", "optimizer.critic.lr=6e-2", "critic_lr_too_high"),
    "GAN weight x 100": case("toy2d_dmd2", "loss.generator.gan.weight=3", "gan_too_strong"),
    "teacher of 5 %": case("toy2d_dmd2", "teacher.pretrain.max_iterations=75", "teacher_bad"),
    "float16 overflows": case(
        "toy2d_dmd2",
        "loss.generator.dm._target_=faults.OverflowingFloat16 max_skipped_updates=1000",
        "not_finite",
    ),
    "float16 average": case(
        "toy2d_dmd2", "+callbacks.fault._target_=faults.Float16Averages", "average_too_coarse"
    ),
    "labels shuffled": case("digits_dmd2", f"{DATA}ShuffledLabels", "labels_disagree"),
    "two classes gone": case("digits_dmd2", f"{DATA}TwoClassesGone", "classes_missing"),
    "a tenth of the data": case("digits_dmd2", f"{DATA}TenthOfData", "data_too_small"),
    "regression / 8": case(
        "digits_dmd", "loss.generator.regression.weight=0.25", "generator_collapsing"
    ),
    "noised real inputs": case("digits_4step", "sampler=four_step_real", "inputs_not_simulated"),
    "guidance none": case("text2digits_dmd2", "teacher.guidance=1.0", "guidance_missing"),
    "guidance wrong sign": case("text2digits_dmd2", "teacher.guidance=-1.5", "guidance_missing"),
    "zeros for the null": case(
        "text2digits_dmd2",
        "teacher.conditioner.twin=zeros teacher.weights={teacher}",
        "null_unknown",
    ),
}
"""Healthy runs, then faults, by name."""


def composed(*words: str) -> Config:
    """The config of what is typed."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return of_train([*words, "callbacks.progress=null", "callbacks.samples=null"])


@cache
def tenth(experiment: str) -> int:
    """A tenth of the iterations that an experiment has when it is not shortened."""
    return int(composed(f"experiment={experiment}", "paths.run=none")["max_iterations"]) // 10


def verdicts_of(name: str, seed: int, out: Path) -> list[Verdict]:
    """The verdicts of a run with a fault, which is trained where it was not yet."""
    folder = out / re.sub(r"\W+", "_", f"{name} {seed}")
    if not (folder / "summary.json").exists():
        train(name, seed, folder)
    verdicts = monitor_of(folder).verdicts
    # Where a run went on behind its fault's name, e.g. with another threshold, it counts no more.
    end = next((v.since for v in verdicts if v.name in CASES[name].named), None)
    return [v for v in verdicts if end is None or v.since <= end]


def train(name: str, seed: int, folder: Path) -> None:
    """Train one, and keep the teacher of a healthy one for those on other data."""
    found, out = CASES[name], folder.parent
    teacher = out / f"teacher_{found.experiment}.safetensors"
    words = [f"experiment={found.experiment}", *SHORT[found.experiment].split()]
    words += [*found.overrides.format(teacher=teacher).split(), f"seed={seed}"]
    words += [f"health.stop_on=[{','.join(sorted(found.named))}]", f"paths.run={folder}"]
    words += [f"paths.runs={out}", f"paths.cache={out}/cache"]
    run = Run(composed(*words))
    try:
        run.start()
    except FloatingPointError as error:  # such a run ends itself, with a line of its own
        print(f"{name}: {error}")
    if not found.overrides and run.parts is not None and not teacher.exists():
        teacher.hardlink_to(run.parts.teacher.path)


def since(name: str, verdicts: list[Verdict]) -> int | None:
    """The iteration since which a fault is named, among the first two verdicts; None: not."""
    return next((v.since for v in verdicts[:2] if v.name in CASES[name].named), None)


def is_right(name: str, verdicts: list[Verdict]) -> bool:
    """Whether a fault was named among the first two verdicts, or a healthy run not alarmed."""
    return since(name, verdicts) is not None if CASES[name].named else not verdicts


def by_case(found: Verdicts) -> dict[str, list[list[Verdict]]]:
    """The runs of each case, in the order of seeds."""
    cases: dict[str, list[list[Verdict]]] = {}
    for (name, _), verdicts in found.items():
        cases.setdefault(name, []).append(verdicts)
    return {name: cases[name] for name in CASES if name in cases}


def table(found: Verdicts) -> list[str]:
    """A row a case: how many were right, since when each, and the other verdicts among two."""
    lines = ["| case | right | named at iteration | others of the first two |", "|---|---|---|---|"]
    for name, runs in by_case(found).items():
        right = sum(is_right(name, verdicts) for verdicts in runs)
        named = [since(name, verdicts) for verdicts in runs] if CASES[name].named else []
        others = Counter(
            f"{v.name} at {v.since}"
            for verdicts in runs
            for v in verdicts[:2]
            if v.name not in CASES[name].named
        )
        said = ", ".join("not" if at is None else str(at) for at in named)
        rest = ", ".join(f"{what} ({num}x)" for what, num in sorted(others.items()))
        lines.append(f"| {name} | {right} of {len(runs)} | {said} | {rest} |")
    return lines


def figures(found: Verdicts) -> list[str]:
    """Shares of faults that were named, and soon, and of healthy runs that were alarmed."""
    faults = [(name, verdicts) for (name, _), verdicts in found.items() if CASES[name].named]
    healthy = [verdicts for (name, _), verdicts in found.items() if not CASES[name].named]
    early = [
        at is not None and at <= tenth(CASES[name].experiment)
        for name, verdicts in faults
        for at in [since(name, verdicts)]
    ]
    return [
        f"* faults named: {sum(is_right(*row) for row in faults)} of {len(faults)}",
        f"* named before a tenth of the whole run: {sum(early)} of {len(faults)}",
        f"* healthy runs alarmed: {sum(map(bool, healthy))} of {len(healthy)}",
    ]


def draw(found: Verdicts, path: Path) -> None:
    """The confusion matrix: of each case, the share of runs with each verdict among two."""
    checks, cases = [*(check.name for check in CHECKS), "no verdict"], by_case(found)
    rows = [
        Counter(v for run in runs for v in ({r.name for r in run[:2]} or {"no verdict"}))
        for runs in cases.values()
    ]
    shares = [
        [row[check] / len(runs) for check in checks]
        for row, runs in zip(rows, cases.values(), strict=True)
    ]
    figure, axes = plt.subplots(figsize=(11, 9))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=3)  # pale: numbers are read on it
    for y, (name, row) in enumerate(zip(cases, rows, strict=True)):
        for x, check in enumerate(checks):
            is_meant = check in (CASES[name].named or {"no verdict"})
            color, weight = ("black", "bold") if is_meant else ("firebrick", "normal")
            if row[check]:
                axes.text(
                    x,
                    y,
                    str(row[check]),
                    ha="center",
                    va="center",
                    color=color,
                    weight=weight,
                    size=8,
                )
    axes.set_xticks(range(len(checks)), checks, rotation=60, ha="right")
    axes.set_yticks(range(len(cases)), cases)
    axes.set_xlabel("first two verdicts (runs; bold: the right one)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is asked for, and write what came of it."""
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    out = Path(options["out"]).absolute()
    seeds = [int(seed) for seed in options.get("seeds", "0,1,2").split(",")]
    names = options["faults"].split(";") if "faults" in options else list(CASES)
    found = {(name, seed): verdicts_of(name, seed, out) for seed in seeds for name in names}
    text = "\n".join([*table(found), "", *figures(found)]) + "\n"
    (out / "table.md").write_text(text)
    print(text)
    draw(found, out / "confusion.png")


if __name__ == "__main__":
    main()
