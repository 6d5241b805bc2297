"""Measure a part of the machinery on this host.

usage: dmd2 benchmark [part=loader] [source=PATH] [part.KEY=VALUE ...]

  part     What to measure; conf/part/NAME.yaml has its options.
  source   What to measure with, e.g. a folder of `dmd2 prepare`; by default something is made up.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from dmd2.cli.errors import user_errors
from dmd2.config.check import check_options, config_folder
from dmd2.runs.build import build


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="benchmark")
@user_errors
def main(options: DictConfig) -> None:
    """Measure, and print the table."""
    check_options(options, "benchmark")
    source = None if options.source is None else Path(options.source)
    print("\n".join(build(options.part)(source)))
