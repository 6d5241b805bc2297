"""The configuration in a run's directory, read from anywhere, and only where it is trusted."""

from contextlib import AbstractContextManager
from pathlib import Path

from dmd2.config.batch_size import share_batch
from dmd2.config.check import Config
from dmd2.config.keys import check_renamed
from dmd2.config.places import found_from_anywhere
from dmd2.config.trust import check_trusted
from dmd2.distributed.process_group import process_group
from dmd2.runs.build import device_for
from dmd2.runs.config_file import check_has, read_config

SHARED = ("data.batch_size", "trainer.accelerator", "trainer.devices")
"""Keys by which batches are shared among devices."""


def config_of(run: Path, trust: bool) -> Config:
    """The configuration in a run directory, its relative names found from wherever this is called.

    Raises FileNotFoundError where there is no run, ValueError where its config is no mapping, or
    is not trusted.
    """
    path = run / "config.yaml"
    if not path.exists():
        raise FileNotFoundError(f"there is no run at {run}; {_runs_near(run)}")
    config: Config = read_config(path)
    # What was typed, and is computed in the config itself: nothing is built from it.
    config.pop("composed", None)
    if not trust:
        check_trusted(path, config)
    check_renamed(config, str(path))
    check_has(path, config, SHARED)
    share_batch(config)  # done already, but in a file that `--cfg job` wrote
    start = config.get("paths", {}).get("start")
    return config if start is None else found_from_anywhere(config, Path(start))


def _runs_near(run: Path) -> str:
    """What to name in place of a directory that holds no run: one below or above it that does."""
    near = [*sorted(run.glob("latest/config.yaml")), *sorted(run.glob("*/config.yaml"))]
    near += sorted(Path("runs").glob("*/latest/config.yaml"))
    if near:
        return f"there is one at {near[0].parent}"
    return (
        "name the directory that dmd2 train printed: run=runs/EXPERIMENT/latest (dmd2 benchmark: "
        "source=)"
    )


def as_one_of_torchrun(run: Path, trust: bool) -> AbstractContextManager[None]:
    """A block in which this process works on a run's student, alone or as torchrun started it.

    Of several ranks only rank 0 prints.
    """
    return process_group(device_for(config_of(run, trust)).type == "cuda")
