"""Say what an experiment takes, before anything is downloaded: memory, work, traffic, disk, time.

usage: dmd2 plan [experiment=NAME] [memory=24GB] [gpus=N] [KEY=VALUE ...]
       dmd2 plan run=DIR     the plan of a run that has ended, and what it measured beside it

  memory   Of a card, as 24GB or 24GiB: whether the run fits, and if not, which words to add.
           A name, as memory=low, is dmd2 train's, and both may be given.
  gpus     Devices that the run is shared by; global_batch is divided by them.

Other keys are those of dmd2 train. The training step is run on tensors without contents. Times are
estimates from data sheets, and no measurement.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hydra import initialize_config_dir

from dmd2.config.check import Config, of_train
from dmd2.config.folder import config_folder
from dmd2.planning.page import advice, measured_line, page
from dmd2.planning.search import bytes_of
from dmd2.planning.simulation import simulate
from dmd2.runs.run_config import config_of
from dmd2.runs.summary import read_summary

OWN = re.compile(r"memory=[\d.]|gpus=|run=")
"""How words begin that are no config's: a card's size is a number, and `memory=low` a choice."""


def main(arguments: Sequence[str]) -> None:
    """Print the plan."""
    own = dict(a.split("=", 1) for a in arguments if OWN.match(a))
    words = [a for a in arguments if not OWN.match(a)]
    if "run" in own:
        folder = own.pop("run")
        if others := [*own, *words]:
            raise ValueError(f"dmd2 plan run={folder} takes no other word, got {others[0]}")
        print("\n".join(beside_run(Path(folder))))
        return
    memory = bytes_of(own["memory"]) if "memory" in own else None
    num_devices = number_of(own.get("gpus", "1"))
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = composed(num_devices, words)
        found = simulate(config)
        print("\n".join(page(config, found, num_devices)))
        if memory is not None:
            print(advice(words, found, memory, partial(composed, num_devices)))


def beside_run(folder: Path) -> list[str]:
    """The plan of a run, and a line of what it measured; raises FileNotFoundError without one."""
    config, summary = config_of(folder, trust=False), read_summary(folder / "summary.json")
    found = simulate(config)
    # The devices that it had are not asked for: they need not be here.
    num_devices = summary.get("devices") or 1
    return [*page(config, found, num_devices), measured_line(config, found, summary)]


def composed(num_devices: int, words: list[str]) -> Config:
    """The config of a run on some devices, which need not be here."""
    return of_train([*words, f"trainer.devices={num_devices}"])


def number_of(text: str) -> int:
    """A number of devices; raises ValueError."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"gpus={text} is no number of devices; type e.g. gpus=8")
    return int(text)
