"""Score a run's weights again, by the run's own metrics; writes evaluation.json beside its summary.

usage: dmd2 evaluate run=DIR [weights=raw] [num_samples=10000] [batch_size=500]

  run          A run's directory, e.g. runs/digits_dmd2/latest.
  weights      One of the run's averages, or "raw"; null scores each of them. Or a generator's .safetensors, e.g. of
               `dmd2 import`: DIR then needs no more than the config.yaml of what to score it by, which
               `dmd2 train --cfg job --resolve KEY=VALUE ... > DIR/config.yaml` writes.
  num_samples  Samples a score; more is exacter, and scores compare only at the same number. A list scores several.
  batch_size   Samples at once; another one changes how networks round, and nothing else.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from dmd2.config import check_options, config_folder
from dmd2.errors import answered
from dmd2.files import read_json, write_json
from dmd2.report import print_table
from dmd2.scoring import Scores, best
from dmd2.sizes import Sizes
from dmd2.students import load_student

NOT_RUN = {"status": "not trained here", "iterations": 0, "floor": {}, "baselines": {}, "teacher": {}}
"""The summary of a directory that holds a config.yaml only."""


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="evaluate")
@answered
def main(options: DictConfig) -> None:
    """Score, beside the references that the run had."""
    check_options(options, "evaluate")
    run = Path(options.run)
    student = load_student(run)
    scoring = student.scoring()
    scoring.batch_size = options.batch_size or scoring.batch_size
    if options.num_samples is not None:
        scoring.sizes = Sizes(options.num_samples)
    students: dict[str, Scores] = {}
    for name in [options.weights] if options.weights else student.names:
        student.read(name)
        students[name] = scoring.student(student.generator)
    path, first = run / "summary.json", next(iter(students))
    summary = read_json(path) if path.exists() else NOT_RUN | {"experiment": student.config["name"]}
    found = {
        "weights": first,
        "metrics": students[first],
        "students": students,
        "best": best([{"iteration": summary["iterations"], "scores": students}], scoring.primary),
    }
    write_json(run / "evaluation.json", {"num_samples": scoring.sizes.numbers[-1], **found})
    if options.num_samples is not None:
        summary |= {"floor": {}, "baselines": {}, "teacher": {}}  # those were scored with another number of samples
    print_table(summary | found, scoring.primary)
