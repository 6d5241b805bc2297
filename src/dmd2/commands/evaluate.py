"""Score a run's weights again, by the run's own metrics; writes evaluation.json beside its summary.

usage: dmd2 evaluate run=DIR [weights=raw] [num_samples=10000] [batch_size=500]

  run          A run's directory, e.g. runs/digits_dmd2/latest.
  weights      One of the run's averages, or "raw"; null scores each of them.
  num_samples  Samples a score; more is exacter, and scores compare only at the same number. A list scores several.
  batch_size   Samples at once; another one changes how networks round, and nothing else.
"""

import json
from pathlib import Path

import hydra
from omegaconf import DictConfig

from dmd2.commands.train import best
from dmd2.config import check_options, config_folder
from dmd2.errors import answered
from dmd2.files import write_json
from dmd2.report import print_table
from dmd2.runtime import load_student, read_student, student_names
from dmd2.scoring import Scores
from dmd2.sizes import Sizes


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="evaluate")
@answered
def main(options: DictConfig) -> None:
    """Score, beside the references that the run had."""
    check_options(options, "evaluate")
    run = Path(options.run)
    student = load_student(run, options.weights)
    scoring, names = student.scoring, student_names(student.config)
    scoring.batch_size = options.batch_size or scoring.batch_size
    if options.num_samples is not None:
        scoring.sizes = Sizes(options.num_samples)
    students: dict[str, Scores] = {}
    for name in [options.weights] if options.weights else names:
        read_student(run, student.config, name, student.generator)
        students[name] = scoring.student(student.generator)
    summary = json.loads((run / "summary.json").read_text())
    first = next(iter(students))
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
