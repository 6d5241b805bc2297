"""Weights & Biases, an optional dependency: a page that groups keys and goes on when a run does."""

import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger

from dmd2.evaluation.health import Verdict
from dmd2.evaluation.scores import References
from dmd2.io.files import write_bytes
from dmd2.io.small_files import read_small_text
from dmd2.training.callbacks.csv_logger import history
from dmd2.training.callbacks.run_logger import PICTURE, RunLogger, by_name, require_package

TIMEOUTS = {"WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "600"}
"""Seconds to wait for a server that does not answer, at the start and at the end of a run.

The environment's own values come first.
"""
LEFT = ("report.html", "comparison.png", "summary.json")
"""What of a run's directory is sent at its end, as an artifact."""


class WandbLogger(LightningWandbLogger, RunLogger):
    """Lightning's logger, which also takes a run's configuration and its pictures."""

    def begin(self, config: Mapping[str, Any], resumed: Path | None, iteration: int) -> None:
        """Send the configuration; the page itself goes on where it was.

        A page that is not on the server yet, e.g. offline, gets all that the resumed run's
        metrics.csv and pictures have up to `iteration`: it is whole, and needs no earlier piece.
        """
        self.log_hyperparams(dict(config))
        if resumed is None or (self.experiment.resumed and not self.experiment.offline):
            return
        for step, numbers, grid in history(resumed, iteration):
            self.log_metrics(numbers, step)
            if grid is not None:
                self.log_picture(PICTURE, grid, step)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send numbers of iteration `step`, which is the page's own step, too."""
        # Lightning's method lets wandb count the calls, from 0 again when a run is resumed.
        self.experiment.log({**metrics, "trainer/global_step": step}, step=step)

    def log_picture(self, key: str, path: Path, iteration: int) -> None:
        """Send a picture."""
        self.log_image(key, [str(path)], step=iteration)

    def log_references(self, references: References) -> None:
        """Send them as summary values, which stand beside the last scores."""
        self.experiment.summary.update(by_name(references))

    def log_verdict(self, verdict: Verdict) -> None:
        """Send an alert, which W&B may mail."""
        self.experiment.alert(f"health: {verdict.name}", str(verdict), level="WARN")

    def end(self, folder: Path) -> None:
        """Send the run's page, and finish, so that the next run of a sweep gets one of its own."""
        import wandb  # noqa: PLC0415

        if files := [path for name in LEFT if (path := folder / name).is_file()]:
            artifact = wandb.Artifact(f"report-{self.experiment.id}", "report")
            for path in files:
                artifact.add_file(str(path))
            self.experiment.log_artifact(artifact)
        self.experiment.finish()


def wandb_logger(project: str, group: str, save_dir: str, tags: Sequence[str] = ()) -> WandbLogger:
    """A logger whose run id is kept in `save_dir`/wandb_id.txt, so that a resumed run goes on.

    Where the server cannot be reached, or is not to be (WANDB_MODE=offline), the page is kept in
    `save_dir`/wandb, and a line on stderr says how to send it. Raises ValueError where the package
    is missing or the server refuses us.
    """
    require_package("wandb")
    import wandb  # noqa: PLC0415

    path = Path(save_dir) / "wandb_id.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Kept in the run's directory: a resumed run finds its page again.
        write_bytes(path, uuid.uuid4().hex[:12].encode())
    for name, seconds in TIMEOUTS.items():
        os.environ.setdefault(name, seconds)
    build = partial(
        WandbLogger,
        project=project,
        group=group,
        name=f"{group} {path.parent.name}",
        tags=list(tags),
        save_dir=save_dir,
        id=read_small_text(path),
    )
    # The newest piece is the whole page, and sending it replaces what an earlier one has left.
    hint = f"to send the page later type: wandb sync {save_dir}/wandb/latest-run"
    if os.environ.get("WANDB_MODE") == "offline":
        print(f"dmd2: wandb is offline; {hint}", file=sys.stderr)
        return build(mode="offline")
    logger = build(resume="allow")
    try:
        _ = logger.experiment  # which connects: better now than after the first iterations
    except wandb.errors.CommError as error:
        wandb.teardown()
        print(
            f"dmd2: wandb cannot be reached ({str(error).splitlines()[0]}); {hint}",
            file=sys.stderr,
        )
        # Training matters more than the page, which can be sent later.
        logger = build(mode="offline")
    except wandb.errors.Error as error:
        raise ValueError(f"wandb: {error}; WANDB_MODE=offline needs no account") from error
    return logger
