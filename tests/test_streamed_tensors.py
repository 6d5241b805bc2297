"""A safetensors file that is written in blocks is one as any other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dmd2.io.blocks import save_blocks
from dmd2.io.hub import variant_of
from dmd2.io.tensors import read_tensors


def blocks(*sizes: int) -> Iterator[dict[str, Tensor]]:
    for num in sizes:
        yield {
            "text": torch.randn(2 * num, 3, 4).bfloat16(),
            "pooled": torch.randn(num, 5),
            "lengths": torch.full([num], 2, dtype=torch.int32),
        }


def test_blocks_are_read_back_joined(tmp_path: Path):
    made = list(blocks(3, 0, 2))
    save_blocks(iter(made), tmp_path / "new" / "table.safetensors", streamed="text")
    found = read_tensors(tmp_path / "new" / "table.safetensors")
    assert set(found) == {"text", "pooled", "lengths"} and found["text"].shape == (10, 3, 4)
    for name, value in found.items():
        assert torch.equal(value, torch.cat([block[name] for block in made]))


def test_blocks_that_end_early_leave_no_file(tmp_path: Path):
    def broken() -> Iterator[dict[str, Tensor]]:
        yield from blocks(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_blocks(broken(), tmp_path / "table.safetensors", streamed="text")
    assert not list(tmp_path.iterdir())


def test_a_variant_may_be_in_shards(tmp_path: Path):
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "model.safetensors.index.fp16.json").touch()
    assert variant_of(str(tmp_path), "text_encoder/model", "fp16") == "fp16"
    with pytest.warns(UserWarning, match="the plain file is read"):
        assert variant_of(str(tmp_path), "text_encoder/model", "bf16") is None
