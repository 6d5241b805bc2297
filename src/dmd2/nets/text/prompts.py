"""Captions as conditions: a label is the number of a caption, so that who draws or stores labels
needs no text.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from dmd2.diffusion.conditioning import Cond, Conditioner
from dmd2.io.tensors import read_tensors, save_tensors
from dmd2.nets.text.clip import CLIP

EMBEDDINGS = ("text", "pooled")
"""The parts of a condition that come from words; the others the unconditional twin keeps."""
Twin = Literal["empty", "zeros"]


def prompts(
    captions: Sequence[str],
    encoder: CLIP,
    twin: Twin,
    negative: str | None = None,
    cache: str | Path | None = None,
) -> "Prompts":
    """`CachedPrompts` in the folder `cache` where one is named, else `Prompts`."""
    if cache is None:
        return Prompts(captions, encoder, twin, negative)
    return CachedPrompts(captions, encoder, twin, cache, negative)


class Prompts(Conditioner):
    """Encodes the captions that labels [B] name, in every pass.

    captions  The table of captions.
    encoder   Captions to tokens, and tokens to a condition; frozen here.
    twin      The unconditional twin: what the encoder makes of an empty caption, or zeros (SDXL).
    negative  A text that guidance leads away from in the twin's place.
    """

    def __init__(
        self, captions: Sequence[str], encoder: CLIP, twin: Twin, negative: str | None = None
    ) -> None:
        super().__init__()
        if not captions or twin not in ("empty", "zeros"):
            raise ValueError(
                f"prompts need captions and twin=empty or zeros, got {len(captions)} and {twin!r}"
            )
        self.num_classes, self.twin, self.negative = len(captions), twin, negative
        self.encoder = encoder.requires_grad_(False).eval()
        self.keep("tokens", encoder.tokens(captions))
        with torch.no_grad():
            null = encoder(encoder.tokens([negative or ""]).to(next(encoder.parameters()).device))
        self.parts = tuple(null)
        is_zero = twin == "zeros" and negative is None
        for key, value in null.items():
            self.keep(
                f"null_{key}", torch.zeros_like(value) if is_zero and key in EMBEDDINGS else value
            )

    def keep(self, name: str, value: Tensor) -> None:
        """Hold a tensor that goes where the module goes, and into no checkpoint."""
        self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def forward(self, labels: Tensor) -> Cond:
        with torch.autocast(labels.device.type, enabled=False):
            return self.encoder(self.get_buffer("tokens")[labels])

    def null(self, cond: Cond) -> Cond:
        return {key: self.get_buffer(f"null_{key}").expand_as(value) for key, value in cond.items()}

    def of(self, captions: Sequence[str]) -> Conditioner:
        return Prompts(captions, self.encoder, self.twin, self.negative)


class CachedPrompts(Prompts):
    """Looks embeddings up in a table of all captions, made once on the CPU and kept in the folder
    `cache`.

    The file's name is a hash of tokens and weights. The table goes where the module goes, in
    float32: at Stable
    Diffusion's 77 x 768 a caption takes 237 kB, so hundreds of thousands of captions are for
    `Prompts`. The encoder
    stays on the host until a metric has captions of its own. Raises ValueError where `cache` is a
    file.
    """

    def __init__(
        self,
        captions: Sequence[str],
        encoder: CLIP,
        twin: Twin,
        cache: str | Path,
        negative: str | None = None,
    ) -> None:
        super().__init__(captions, encoder, twin, negative)
        if Path(cache).is_file():
            raise ValueError(
                f"{cache} is a file; name a folder for embeddings: teacher.conditioner.cache=DIR"
            )
        path = Path(cache) / f"{self.key()}.safetensors"
        if not path.exists():
            save_tensors(self.encoded(), path)
        table = read_tensors(path)
        for key, value in table.items():
            self.keep(f"table_{key}", value)
        self.looked_up, self.same = (
            tuple(table),
            tuple(key for key in self.parts if key not in table),
        )
        self.of_others = (self.encoder,)  # In a tuple the registry does not see it.
        del self.encoder

    def encoded(self) -> Cond:
        """The embeddings of all captions, and nothing of a condition that does not come from
        words.
        """
        blocks = torch.arange(self.num_classes).split(256)
        parts = [Prompts.forward(self, rows) for rows in tqdm(blocks, desc="captions", delay=2)]
        return {
            key: torch.cat([part[key] for part in parts]) for key in EMBEDDINGS if key in parts[0]
        }

    def key(self) -> str:
        """A hash of all that the embeddings depend on."""
        digest = hashlib.sha256()
        for tensor in (self.get_buffer("tokens"), *self.encoder.state_dict().values()):
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def forward(self, labels: Tensor) -> Cond:
        same = {key: self.get_buffer(f"null_{key}").expand(len(labels), -1) for key in self.same}
        return same | {key: self.get_buffer(f"table_{key}")[labels] for key in self.looked_up}

    def of(self, captions: Sequence[str]) -> Conditioner:
        return Prompts(captions, self.of_others[0], self.twin, self.negative)
