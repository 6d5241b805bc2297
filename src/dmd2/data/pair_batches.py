"""Pairs in a training batch: in model space, and in place of the data's real samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def check_pairs(pairs: str | Path | None, num: int, reals: str, batch_size: int) -> None:
    """Raise ValueError where `num` pairs a batch of `batch_size` samples do not fit `pairs` or
    `reals`; all as `DataModule` has them.
    """
    if (pairs is not None) != (num > 0):
        raise ValueError(
            f"pairs and pairs_batch_size come together, got {pairs} and {num}; "
            "e.g. data.pairs=cache/pairs data.pairs_batch_size=32"
        )
    if reals not in ("data", "pairs"):
        raise ValueError(f"reals must be data or pairs, got {reals}; e.g. data.reals=data")
    # With none, they are not made yet.
    if reals == "pairs" and num not in (0, batch_size):
        raise ValueError(
            f"as real samples there must be as many pairs as samples, {batch_size}, got {num}; "
            "type pairs.batch_size=null"
        )


def pairs_of(
    batch: dict[str, Any], to_model: Callable[[Tensor], Tensor], reals: str
) -> dict[str, Tensor]:
    """A batch's pairs, float32 and in model space; also as its real samples, if `reals` are those.

    to_model  What brings stored pixels there.
    """
    image = batch["pair_image"]
    # Float16 images of pairs (latents, points) were stored in model space.
    image = to_model(image) if image.dtype == torch.uint8 else image.float()
    pairs = {"pair_noise": batch["pair_noise"].float(), "pair_image": image}
    return pairs | ({"real": image, "label": batch["pair_label"]} if reals == "pairs" else {})
