"""A text encoder with the LoRAs of its teacher."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmd2.nets.lora_files import merge_texts, read_lora
from dmd2.nets.text.encoder import TextEncoder


def with_loras(encoder: TextEncoder, loras: Sequence[Mapping[str, Any]]) -> TextEncoder:
    """The encoder, with what LoRA files have for its models merged into their weights.

    loras  As `teacher.loras` has them: `source`, a file, and `scale`.

    Raises FileNotFoundError where a file is not there, ValueError where it is of other encoders.
    """
    for lora in loras:
        file = read_lora(Path(lora["source"]))
        if file.texts and not encoder.takes_loras:
            raise ValueError(
                f"{file.path} is also of a text encoder, and those of {type(encoder).__name__} "
                "take none; type teacher.loras=[]"
            )
        merge_texts(list(encoder.models), file, lora.get("scale", 1.0))
    return encoder
