"""Weights & Biases, an optional dependency: a page that groups keys and goes on when a run does."""

import importlib.util
import uuid
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger


def wandb_logger(project: str, group: str, save_dir: str, tags: Sequence[str] = ()) -> WandbLogger:
    """A logger whose run id is kept in `save_dir`/wandb_id.txt: started there again, it continues the same page."""
    if importlib.util.find_spec("wandb") is None:
        raise ValueError("logger=wandb needs the package wandb; type: pip install 'dmd2[wandb]'")
    path = Path(save_dir) / "wandb_id.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12])
    return WandbLogger(
        project=project,
        group=group,
        name=f"{group} {path.parent.name}",
        tags=list(tags),
        save_dir=save_dir,
        id=path.read_text(),
        resume="allow",
    )
