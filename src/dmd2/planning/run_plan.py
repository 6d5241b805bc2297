"""The plan of a run that is about to begin, which its measured peak is compared with."""

from collections.abc import Mapping

import torch

from dmd2.config.check import Config
from dmd2.distributed.rank_zero import warn
from dmd2.planning.simulation import simulate
from dmd2.runs.copies import wants_shards
from dmd2.runs.pipeline_source import with_lender


def planned_peaks(config: Config) -> Mapping[str, int] | None:
    """Bytes of tensors at each peak of a run, on one of its devices.

    None where nothing can be compared with it: on a CPU the process is measured, with Python and
    its libraries, and shards are planned as if they were whole. None with a warning where there is
    no plan: that is no reason to end a run.
    """
    if config["trainer"]["accelerator"] != "gpu" or wants_shards(config):
        return None
    try:
        # Building networks draws from torch's generator, which the run finds as it was.
        with torch.random.fork_rng(devices=[]):
            found = simulate(with_lender(config))
    except Exception as error:
        warn(f"this run's memory is not planned: {error}")
        return None
    return {name: peak.total() for name, peak in found.peaks.items()}
