"""Measure a part of the machinery on this host.

usage: dmd2 benchmark [part=loader] [source=PATH] [part.KEY=VALUE ...]

  part     What to measure; conf/part/NAME.yaml has its options.
  source   What to measure with, e.g. a folder of `dmd2 prepare`; by default something is made up.
"""

from pathlib import Path

from omegaconf import DictConfig

from dmd2.cli.verbs import verb_of_options
from dmd2.runs.build import build


@verb_of_options("benchmark")
def main(options: DictConfig) -> None:
    """Measure, and print the table."""
    source = None if options.source is None else Path(options.source)
    print("\n".join(build(options.part)(source)))
