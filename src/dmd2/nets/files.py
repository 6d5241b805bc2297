"""Writes a pipeline of diffusers as a folder."""

from pathlib import Path
from typing import Any

from torch import nn

from dmd2.io.pretrained import check_words
from dmd2.io.progress import writing


def save_pipeline(pipeline: Any, folder: Path) -> None:
    """Write a pipeline with all its parts, with a bar.

    Raises what diffusers and the disk raise, and FileNotFoundError where a tokenizer has no words.
    """
    for name, part in pipeline.components.items():
        if name.startswith("tokenizer") and part is not None:
            check_words(part, Path(pipeline.name_or_path or "", name))
    models = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    num_bytes = sum(x.nbytes for model in models for x in model.state_dict().values())
    with writing(folder, f"a {type(pipeline).__name__}", num_bytes):
        pipeline.save_pretrained(folder)
