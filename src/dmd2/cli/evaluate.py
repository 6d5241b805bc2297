"""Score a run's weights again, by its own metrics or others; writes evaluation.json into the run.

usage: dmd2 evaluate run=DIR [weights=raw] [metric=coco30k] [num_samples=10000] [batch_size=500]
       torchrun --no-python --nproc-per-node=8 dmd2 evaluate run=DIR ...   the same on eight GPUs

  run          A run's directory, e.g. runs/digits_dmd2/latest.
  metric       A choice of conf/metric in place of the run's own; its keys are metric.KEY.
  weights      One of the run's averages, or "raw"; null scores each of them. Or a generator's
               .safetensors, e.g. of `dmd2 import`: DIR then needs only the config.yaml of what to
               score it by, which `dmd2 train --cfg job --resolve KEY=VALUE ... > DIR/config.yaml`
               writes.
  num_samples  Samples a score. More samples give a more exact score, and scores compare only at
               the same number. A list gives several scores.
  batch_size   Samples at once; another one changes how networks round, and nothing else.
  dtype        Of the network that makes samples: float32, or bfloat16, which is faster on a GPU.

Scoring that was interrupted resumes where it stopped, by the same command.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dmd2.distributed.rank_zero import claimed, on_rank_zero
from dmd2.evaluation.scores import Scores, best, by_class, overall
from dmd2.evaluation.scoring import Evaluator
from dmd2.io.files import discard, write_hashed_json
from dmd2.io.replace import sweep_halves_of
from dmd2.runs.load import Student, load_student
from dmd2.runs.run_config import as_one_of_torchrun
from dmd2.runs.score_table import print_table
from dmd2.runs.summary import read_summary

NOT_RUN = {
    "status": "not trained here",
    "iterations": 0,
    "floor": {},
    "baselines": {},
    "teacher": {},
}
"""The summary of a directory that holds a config.yaml only."""


def main(options: DictConfig) -> None:
    """Score in this process, which may be one of several that torchrun started."""
    run = Path(options.run)
    refusal = f"dmd2 evaluate is at work in {run} already; wait for it"
    # Two at once would share their partial sums, and the first to end would remove the other's.
    with as_one_of_torchrun(run, options.trust), claimed(run / "scoring", refusal):
        on_rank_zero(lambda: sweep_halves_of(run / "evaluation.json"))
        evaluate(options)


def evaluate(options: DictConfig) -> None:
    """Score the run's weights; all ranks share the samples, and rank 0 writes evaluation.json."""
    run = Path(options.run)
    asked: dict[str, Any] = OmegaConf.to_container(options)  # type: ignore[assignment]
    if asked.get("metric") and "_target_" not in asked["metric"]:
        raise ValueError("metric.KEY=VALUE changes a metric that is chosen; type metric=NAME, too")
    # The defaults list has `metric: null`: without a choice the config has no such key at all.
    student = load_student(run, asked.get("metric"), options.trust)
    keys = ("num_samples", "batch_size", "dtype")
    changes = {key: asked[key] for key in keys if asked[key] is not None}
    # Before `evaluator()`, which builds the metric from this section.
    student.config["metric"].update(changes)
    evaluator = student.evaluator()
    scores: dict[str, Scores] = {}
    for name in [options.weights] if options.weights else student.names:
        student.read(name)
        # Partial sums are kept in the run's directory, under a key of these very weights.
        scores[name] = evaluator.scores(student.generator, sums=student.partial_sums())
    # A directory for imported weights holds a config.yaml only, and no run was trained in it.
    path = run / "summary.json"
    summary = (
        read_summary(path) if path.exists() else NOT_RUN | {"experiment": student.config["name"]}
    )
    if changes.keys() - {"batch_size"} or "metric" in asked:
        # The run's references are of another metric, number of samples or dtype, and compare with
        # nothing.
        summary |= {"floor": {}, "baselines": {}, "teacher": {}}
    on_rank_zero(lambda: write_evaluation(student, evaluator, scores, summary))


def write_evaluation(
    student: Student, evaluator: Evaluator, scores: dict[str, Scores], summary: dict[str, Any]
) -> None:
    """Write evaluation.json, and print the table beside what is in the run's summary."""
    run, primary = student.run, evaluator.primary
    students = {name: overall(found) for name, found in scores.items()}
    first = next(iter(students))
    found = {
        "weights": first,
        "metrics": students[first],
        "students": students,
        "best": best([{"iteration": summary["iterations"], "scores": students}], primary),
    }
    classes = {name: by_class(found) for name, found in scores.items()}
    made = {"num_samples": evaluator.counts.numbers[-1], "dtype": evaluator.protocol.dtype}
    whole = {**made, **found, "by_class": classes}
    write_hashed_json(run / "evaluation.json", whole)
    # The partial sums; only now, so that scoring which is interrupted before this line resumes.
    discard(run / "scoring")
    print_table(summary | found, primary)
    print(run / "evaluation.json")
