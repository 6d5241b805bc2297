"""Conditioners for text: a label is the number of a caption in a table, so that code which draws or
stores labels handles no text.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dmd2.diffusion.conditioning import Cond, Conditioner, check_labels
from dmd2.io.tensors import read_tensors, save_tensors
from dmd2.nets.text.clip import CLIP, Twin

EMBEDDINGS = ("text", "pooled")
"""The parts of a condition that come from words. The unconditional twin keeps the others."""


def prompts(
    captions: Sequence[str],
    encoder: CLIP,
    twin: Twin | None,
    negative: str | None = None,
    cache: str | Path | None = None,
) -> "Prompts":
    """`CachedPrompts` with the folder `cache`, or `Prompts` where that is None; their arguments.

    twin  None is the one that the encoder's pipeline was trained with.
    """
    twin = twin or encoder.twin
    if cache is None:
        return Prompts(captions, encoder, twin, negative)
    return CachedPrompts(captions, encoder, twin, cache, negative)


class Prompts(Conditioner):
    """Encodes the captions that labels [B] name, in every pass.

    captions  The table of captions.
    encoder   Captions to tokens, and tokens to a condition; frozen here.
    twin      The unconditional twin: "empty" is what the encoder makes of an empty caption, "zeros"
              are zeros (SDXL).
    negative  A text whose embedding takes the twin's place: guidance leads away from it.

    Raises ValueError where there are no captions, or `twin` is neither of the two.
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
        # Tokenized once: tokenizing is slow, and the tokens of a caption are some 300 bytes.
        self.keep("tokens", encoder.tokens(captions))
        with torch.no_grad():
            null = encoder(encoder.tokens([negative or ""]).to(next(encoder.parameters()).device))
        self.parts = tuple(null)
        # A negative text, even "", is embedded where the twin is zeros, as in diffusers' SDXL.
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
        """Labels int64 [B] to the encoder's condition, float32, without a graph."""
        check_labels(labels, self.num_classes, "captions")
        # Not under the caller's autocast, so that a cached table holds the very same numbers.
        with torch.autocast(labels.device.type, enabled=False):
            return self.encoder(self.get_buffer("tokens")[labels])

    def null(self, cond: Cond) -> Cond:
        """The unconditional twin, or the negative text, of every row of `cond`."""
        return {key: self.get_buffer(f"null_{key}").expand_as(value) for key, value in cond.items()}

    def of(self, captions: Sequence[str]) -> Conditioner:
        """The same on another table of captions, e.g. a metric's own; the encoder is shared."""
        return Prompts(captions, self.encoder, self.twin, self.negative)


class CachedPrompts(Prompts):
    """Looks embeddings up in a table of all captions, made once on the CPU and kept in the folder
    `cache`. Other arguments are those of `Prompts`.

    The file's name is a hash of tokens and weights. The table goes where the module goes, in
    float32: at Stable Diffusion's 77 x 768 a caption takes 237 kB, so for hundreds of thousands of
    captions use `Prompts`. The encoder stays on the host until a metric has captions of its own.
    Raises ValueError where `cache` is a file.
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
        # Read back also when just made: every run has the numbers of the file.
        table = read_tensors(path)
        for key, value in table.items():
            self.keep(f"table_{key}", value)
        # Parts without a table are those of the twin: SDXL's sizes are the same for every caption.
        self.looked_up = tuple(table)
        self.same = tuple(key for key in self.parts if key not in table)
        # In a tuple it is no submodule, so that it does not move to the device with the rest.
        self.of_others = (self.encoder,)
        del self.encoder

    def encoded(self) -> Cond:
        """The embeddings of all captions, {"text": [N, L, D], ...}: the parts in `EMBEDDINGS`."""
        blocks = torch.arange(self.num_classes).split(256)
        parts = [Prompts.forward(self, rows) for rows in tqdm(blocks, desc="captions", delay=2)]
        return {
            key: torch.cat([part[key] for part in parts]) for key in EMBEDDINGS if key in parts[0]
        }

    def key(self) -> str:
        """A hash of all that the embeddings depend on."""
        # Of tokens and weights, not of captions and names: a changed tokenizer or a finetuned
        # encoder under the same name gets a file of its own.
        digest = hashlib.sha256()
        for tensor in (self.get_buffer("tokens"), *self.encoder.state_dict().values()):
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            # As bytes, since numpy has no bfloat16.
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def forward(self, labels: Tensor) -> Cond:
        """Labels int64 [B] to the condition that `Prompts` gives, from the table."""
        check_labels(labels, self.num_classes, "captions")
        same = {key: self.get_buffer(f"null_{key}").expand(len(labels), -1) for key in self.same}
        return same | {key: self.get_buffer(f"table_{key}")[labels] for key in self.looked_up}

    def of(self, captions: Sequence[str]) -> Conditioner:
        """The same on another table of captions, encoded in every pass and in no cache."""
        return Prompts(captions, self.of_others[0], self.twin, self.negative)
