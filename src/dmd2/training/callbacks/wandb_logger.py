"""Weights & Biases, an optional dependency: a page that groups keys and goes on when a run does."""

import importlib.util
import os
import sys
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger

PATIENCE = {"WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "600"}
"""Seconds to wait for a server that does not answer, at either end of a run, unless the environment
has others.
"""


def wandb_logger(project: str, group: str, save_dir: str, tags: Sequence[str] = ()) -> WandbLogger:
    """A logger whose run id is kept in `save_dir`/wandb_id.txt: started there again, it continues
    the same page.

    Where the server cannot be reached the page is kept in `save_dir`/wandb, and said so on stderr.
    Raises
    ValueError where the package is missing or the server refuses us.
    """
    if importlib.util.find_spec("wandb") is None:
        raise ValueError("logger=wandb needs the package wandb; type: pip install 'dmd2[wandb]'")
    import wandb  # noqa: PLC0415

    path = Path(save_dir) / "wandb_id.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12])
    for name, seconds in PATIENCE.items():
        os.environ.setdefault(name, seconds)
    build = partial(
        WandbLogger,
        project=project,
        group=group,
        name=f"{group} {path.parent.name}",
        tags=list(tags),
        save_dir=save_dir,
        id=path.read_text(),
        resume="allow",
    )
    logger = build()
    try:
        _ = logger.experiment  # which connects
    except wandb.errors.CommError as error:
        wandb.teardown()
        print(
            f"dmd2: wandb cannot be reached ({str(error).splitlines()[0]}); to send the page "
            "later type: "
            f"wandb sync {save_dir}/wandb/offline-*",
            file=sys.stderr,
        )
        logger = build(mode="offline")
    except wandb.errors.Error as error:
        raise ValueError(f"wandb: {error}; WANDB_MODE=offline needs no account") from error
    return logger
