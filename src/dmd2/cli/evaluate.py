"""Score a run's weights again, by the run's own metrics or others; writes evaluation.json beside
its summary.

usage: dmd2 evaluate run=DIR [weights=raw] [metric=coco30k] [num_samples=10000] [batch_size=500]
       torchrun --no-python --nproc-per-node=8 dmd2 evaluate run=DIR ...   the same on eight GPUs

  run          A run's directory, e.g. runs/digits_dmd2/latest.
  metric       A choice of conf/metric in place of the run's own, whose keys are metric.KEY.
  weights      One of the run's averages, or "raw"; null scores each of them. Or a generator's
               .safetensors, e.g. of
               `dmd2 import`: DIR then needs no more than the config.yaml of what to score it by,
               which
               `dmd2 train --cfg job --resolve KEY=VALUE ... > DIR/config.yaml` writes.
  num_samples  Samples a score; more is exacter, and scores compare only at the same number. A list
               scores several.
  batch_size   Samples at once; another one changes how networks round, and nothing else.

A score that was cut off goes on where it was, by the same command.
"""

import shutil
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from dmd2.cli.errors import user_errors
from dmd2.config.check import check_options, config_folder
from dmd2.distributed.process_group import rank
from dmd2.evaluation.best import best
from dmd2.evaluation.scoring import Scores
from dmd2.io.files import read_json, write_json
from dmd2.runs.load import load_student, on_ranks
from dmd2.runs.report import print_table

NOT_RUN = {
    "status": "not trained here",
    "iterations": 0,
    "floor": {},
    "baselines": {},
    "teacher": {},
}
"""The summary of a directory that holds a config.yaml only."""


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="evaluate")
@user_errors
def main(options: DictConfig) -> None:
    """Score, alone or as one of several ranks."""
    check_options(options, "evaluate")
    on_ranks(Path(options.run), lambda: score(options))


def score(options: DictConfig) -> None:
    """Score, beside the references that the run had; rank 0 says what came out."""
    run = Path(options.run)
    asked: dict[str, Any] = OmegaConf.to_container(options)  # type: ignore[assignment]
    student = load_student(run, asked.get("metric"))
    changes = {key: asked[key] for key in ("num_samples", "batch_size") if asked[key] is not None}
    student.config["metric"].update(changes)
    scoring = student.scoring()
    students: dict[str, Scores] = {}
    for name in [options.weights] if options.weights else student.names:
        student.read(name)
        scoring.sums = student.sums()
        students[name] = scoring.student(student.generator)
    if rank() > 0:
        return
    path, first = run / "summary.json", next(iter(students))
    summary = read_json(path) if path.exists() else NOT_RUN | {"experiment": student.config["name"]}
    found = {
        "weights": first,
        "metrics": students[first],
        "students": students,
        "best": best([{"iteration": summary["iterations"], "scores": students}], scoring.primary),
    }
    write_json(run / "evaluation.json", {"num_samples": scoring.sizes.numbers[-1], **found})
    shutil.rmtree(run / "scoring")
    if "num_samples" in changes or "metric" in asked:
        summary |= {"floor": {}, "baselines": {}, "teacher": {}}  # those are other scores
    print_table(summary | found, scoring.primary)
    print(run / "evaluation.json")
