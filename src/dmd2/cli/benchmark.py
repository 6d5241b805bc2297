"""Measure a part: the speed of data loader, iteration or sampling here, or what a run's steps make.

usage: dmd2 benchmark [part=loader] [source=PATH] [part.KEY=VALUE ...]

  part     What to measure: evaluation, generation, iteration, ladder, loader or steps; dmd2
           benchmark --choices part says what each is, and conf/part/NAME.yaml has its options.
  source   What to measure with, e.g. a folder of `dmd2 prepare` or a run's directory; by default
           random data, for the parts that need no run.
"""

from pathlib import Path

from omegaconf import DictConfig

from dmd2.runs.build import build


def main(options: DictConfig) -> None:
    """Measure, and print the table."""
    # A part is a partial function of its options; only the source comes from here.
    source = None if options.source is None else Path(options.source)
    print("\n".join(build(options.part)(source)))
