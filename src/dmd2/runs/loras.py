"""The LoRAs that are part of a teacher: `teacher.loras`, merged into its weights."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmd2.config.check import Config
from dmd2.diffusion.denoiser import Denoiser
from dmd2.io.progress import hashed
from dmd2.nets.lora_files import LoRAFile, merge, placed, read_lora


@dataclass(frozen=True)
class TeacherLoRA:
    """A LoRA's file with its hash, and what its products are multiplied by."""

    file: LoRAFile
    sha256: str
    scale: float

    def merge(self, denoiser: Denoiser) -> None:
        """Add the products to a denoiser's weights."""
        merge(denoiser.model, self.file.network, self.scale, self.file.path)


def read_loras(section: Config, denoiser: Denoiser) -> tuple[TeacherLoRA, ...]:
    """The LoRAs of a teacher section, known to fit its denoiser.

    Raises FileNotFoundError where a file is not there, ValueError where it is no LoRA, or one of
    another network, or of a text encoder that the teacher has not.
    """
    loras = []
    for node in section.get("loras") or []:
        path = Path(node["source"])
        if not path.is_file():
            raise FileNotFoundError(f"there is no LoRA at {path}; type teacher.loras=[]")
        file = read_lora(path)
        placed(denoiser.model, file.network, path)
        if file.texts and "encoder" not in section["conditioner"]:
            first = next(iter(next(iter(file.texts.values())).values())).name
            raise ValueError(
                f"{path} is also of a text encoder ({first}), and this teacher has none"
            )
        loras.append(TeacherLoRA(file, hashed(path), float(node.get("scale", 1.0))))
    return tuple(loras)


def sha256_with(weights: str, loras: Sequence[TeacherLoRA]) -> str:
    """The hash of weights, of which `weights` is one, with LoRAs merged into them."""
    if not loras:
        return weights
    parts = [weights, *(f"{lora.sha256} {lora.scale!r}" for lora in loras)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def encoder_with(encoder: Config, loras: list[Config]) -> Config:
    """The node of a text encoder with LoRAs."""
    return {
        "_target_": "dmd2.nets.text.loras.with_loras",
        "encoder": encoder,
        "loras": loras,
    }
