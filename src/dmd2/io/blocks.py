"""A safetensors file that is larger than memory, written in blocks of rows."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dmd2.io.replace import replacing

HEADER_BYTES = 4096
"""Kept free for the header, which says the shapes and is known last; spaces fill the rest."""
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32"}


def save_blocks(blocks: Iterable[Mapping[str, Tensor]], path: Path, streamed: str) -> None:
    """Write tensors that come in blocks of rows, one after the other, to `path`, atomically.

    streamed  The one that goes to disk as it comes; the others wait in memory for the end.

    Raises OSError where the file cannot be written.
    """
    others = dict[str, list[Tensor]]()
    num_rows, form = 0, torch.empty(0)
    with replacing(path) as partial, partial.open("wb") as file:
        file.seek(8 + HEADER_BYTES)
        for block in blocks:
            for name, rows in block.items():
                if name == streamed:
                    file.write(_bytes(rows))
                    num_rows, form = num_rows + len(rows), rows
                else:
                    others.setdefault(name, []).append(rows)
        end = file.tell() - 8 - HEADER_BYTES
        header = {streamed: _entry(form.dtype, [num_rows, *form.shape[1:]], 0, end)}
        for name, parts in others.items():
            data = torch.cat(parts)
            start, end = end, end + data.nbytes
            header[name] = _entry(data.dtype, list(data.shape), start, end)
            file.write(_bytes(data))
        file.seek(0)
        file.write(HEADER_BYTES.to_bytes(8, "little"))
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES))


def _entry(dtype: torch.dtype, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}


def _bytes(x: Tensor) -> bytes:
    # As bytes, since numpy has no bfloat16.
    return x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
