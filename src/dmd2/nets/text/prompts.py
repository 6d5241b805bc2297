"""Conditioners for text: a label is the number of a caption in a table, so that code which draws or
stores labels handles no text.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, Conditioner, check_labels
from dmd2.distributed.device import device_of, sent
from dmd2.io.blocks import save_blocks
from dmd2.io.files import read_hashed_json, write_hashed_json
from dmd2.io.progress import progress_bar
from dmd2.io.tensors import read_tensors
from dmd2.io.vouched import check_changed, hashes_of
from dmd2.nets.text.clip import time_ids_of
from dmd2.nets.text.encoder import TextEncoder, Twin

EMBEDDINGS = ("text", "pooled", "mask")
"""The parts of a condition that come from words. The unconditional twin keeps the others."""
AT_ONCE = 64
"""Captions encoded together; 256 long ones would take gigabytes."""


def prompts(
    captions: Sequence[str],
    encoder: TextEncoder,
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
        self, captions: Sequence[str], encoder: TextEncoder, twin: Twin, negative: str | None = None
    ) -> None:
        super().__init__()
        if not captions or twin not in ("empty", "zeros"):
            raise ValueError(
                f"prompts need captions and twin=empty or zeros, got {len(captions)} and {twin!r}"
            )
        self.num_classes, self.twin, self.negative = len(captions), twin, negative
        self.encoder = encoder.requires_grad_(False).eval()
        # Tokenized once: tokenizing is slow, and the tokens of a caption are some 300 bytes. No
        # buffer: of millions of captions they stay on the host, and a batch's rows are sent.
        self.tokens = encoder.tokens(captions)
        with torch.no_grad():
            null = encoder(encoder.null_tokens(negative).to(device_of(encoder)))
        self.parts = tuple(null)
        # Not the mask: a network that attends to nothing at all may give what is no number.
        zeros = {k: torch.zeros_like(v) if k in ("text", "pooled") else v for k, v in null.items()}
        # A negative text, even "", is embedded where the twin is zeros, as in diffusers' SDXL.
        is_zero = twin == "zeros" and negative is None
        for key in null:
            self.keep(f"null_{key}", (zeros if is_zero else null)[key])
            self.keep(f"other_{key}", (null if is_zero else zeros)[key])

    def keep(self, name: str, value: Tensor) -> None:
        """Hold a tensor that goes where the module goes, and into no checkpoint."""
        self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def forward(self, labels: Tensor) -> Cond:
        """Labels int64 [B] to the encoder's condition, float32, without a graph, on its device."""
        rows, device = labels.cpu(), device_of(self.encoder)
        check_labels(rows, self.num_classes, "captions")
        # Not under the caller's autocast, so that a cached table holds the very same numbers.
        with torch.autocast(device.type, enabled=False):
            return self.encoder(sent(self.tokens[rows], device))

    def at_size(self, size: Sequence[int] | None) -> Callable[[Tensor], Cond]:
        """As of `Conditioner`: SDXL is told the size."""
        if size is None or "time_ids" not in self.parts:
            return self
        told = time_ids_of(size)

        def cond_of(labels: Tensor) -> Cond:
            return self(labels) | {"time_ids": told.to(labels.device).expand(len(labels), -1)}

        return cond_of

    def null(self, cond: Cond) -> Cond:
        """The unconditional twin, or the negative text, of every row of `cond`."""
        return self._in_place_of(cond, "null")

    def other_null(self, cond: Cond) -> Cond:
        """The twin that was not chosen, of every row: zeros, or where those are it, the text."""
        return self._in_place_of(cond, "other")

    def _in_place_of(self, cond: Cond, name: str) -> Cond:
        return {
            key: self.get_buffer(f"{name}_{key}").expand_as(value) if key in EMBEDDINGS else value
            for key, value in cond.items()
        }

    def of(self, captions: Sequence[str]) -> Conditioner:
        """The same on another table of captions, e.g. a metric's own; the encoder is shared."""
        return Prompts(captions, self.encoder, self.twin, self.negative)


class CachedPrompts(Prompts):
    """Looks embeddings up in a table of all captions, made once on the CPU and kept in the folder
    `cache`. Other arguments are those of `Prompts`.

    The file's name is a hash of tokens and weights. It is mapped into memory, so that a table
    larger than that is no obstacle: rows are read as labels name them. A record beside it has its
    hash; a damaged table is made again. Embeddings are float32 of CLIP (237 kB a caption at Stable
    Diffusion's 77 x 768), else bfloat16, and without the text that a mask excludes. The encoder
    stays on the host until a metric has captions of its own.
    Raises ValueError where `cache` is a file.
    """

    def __init__(
        self,
        captions: Sequence[str],
        encoder: TextEncoder,
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
        if not _is_whole(path):
            save_blocks(self.encoded(), path, streamed="text")
            write_hashed_json(_record(path), hashes_of(path.parent, [path.name]))
        # Read back also when just made: every run has the numbers of the file. No buffers: the
        # system holds the pages that were read, and no device does.
        self.table = read_tensors(path)
        # Parts without a table are those of the twin: SDXL's sizes are the same for every caption.
        self.same = tuple(key for key in self.parts if key not in EMBEDDINGS)
        # Where each caption's text ends in the table; empty where nothing is masked.
        self.ends = self.table.get("lengths", torch.zeros(0)).long().cumsum(0)
        # In a tuple it is no submodule, so that it does not move to the device with the rest.
        self.of_others = (self.encoder,)
        # The tokens of 100,000 captions are up to 200 MB.
        del self.encoder, self.tokens

    def encoded(self) -> Iterator[Cond]:
        """The embeddings of all captions in blocks {"text": [n, L, D], ...}: parts in `EMBEDDINGS`.

        Where there is a mask, "text" [m, D] has the m items that it keeps, and "lengths" [n] says
        how many are each caption's.
        """
        dtype = self.encoder.stored
        blocks = torch.arange(self.num_classes).split(AT_ONCE)
        for rows in progress_bar("captions", len(blocks), iterable=blocks):
            cond = Prompts.forward(self, rows)
            block: Cond = {key: cond[key].to(dtype) for key in ("text", "pooled") if key in cond}
            if "mask" in cond:
                block["text"] = block["text"][cond["mask"]]
                block["lengths"] = cond["mask"].sum(1).int()
            yield block

    def key(self) -> str:
        """A hash of all that the embeddings depend on."""
        # Of tokens and weights, not of captions and names: a changed tokenizer or a finetuned
        # encoder under the same name gets a file of its own.
        digest = hashlib.sha256(self.encoder.recipe.encode())
        for tensor in (self.tokens, *self.encoder.state_dict().values()):
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            # As bytes, since numpy has no bfloat16.
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def forward(self, labels: Tensor) -> Cond:
        """Labels int64 [B] to the condition that `Prompts` gives, from the table, on the device of
        the twin's.
        """
        rows, device = labels.cpu(), device_of(self)
        check_labels(rows, self.num_classes, "captions")
        is_packed = "mask" in self.parts
        found = self.unpacked(rows) if is_packed else {"text": self.table["text"][rows]}
        if "pooled" in self.parts:
            found["pooled"] = self.table["pooled"][rows]
        cond = {key: self.get_buffer(f"null_{key}").expand(len(labels), -1) for key in self.same}
        for key, value in found.items():
            moved = sent(value, device)  # as the table has it: bfloat16 is half the way
            cond[key] = moved if key == "mask" else moved.float()
        return cond

    def unpacked(self, rows: Tensor) -> Cond:
        """Text [B, L, D], zeros where the mask [B, L] is false, and the mask."""
        lengths = self.table["lengths"][rows]
        num = self.get_buffer("null_mask").shape[1]
        text = self.table["text"].new_zeros(len(rows), num, self.table["text"].shape[1])
        for row, end, length in zip(text, self.ends[rows], lengths, strict=True):
            row[:length] = self.table["text"][end - length : end]
        return {"text": text, "mask": torch.arange(num) < lengths[:, None]}

    def of(self, captions: Sequence[str]) -> Conditioner:
        """The same on another table of captions, encoded in every pass and in no cache."""
        return Prompts(captions, self.of_others[0], self.twin, self.negative)


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _is_whole(path: Path) -> bool:
    """Whether a table of embeddings is there, and what its record says; damage is warned of."""
    if not (path.exists() and _record(path).exists()):
        return False
    try:
        check_changed(path.parent, read_hashed_json(_record(path)), _record(path))
    except ValueError as error:
        warnings.warn(f"{error}; it is made again", stacklevel=2)
        return False
    return True
