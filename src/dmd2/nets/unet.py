"""Text-conditioned U-Nets of diffusers (`UNet2DConditionModel`) as denoisers: Stable Diffusion 1.5,
SDXL, and small ones made from a config.

Such a network has no halves to call one after the other: `encode` runs all of it and keeps the
output. Forward hooks take the features, and drop the rows that nobody decodes from the inputs of
the up blocks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding, Prediction, last
from dmd2.diffusion.schedules import NoiseSchedule

DECODER = ("up_blocks", "conv_norm_out", "conv_act", "conv_out")
"""Where the names of the decoder's layers begin."""


class UNet(Denoiser):
    """A `UNet2DConditionModel` that reads x_t [B, C, H, W], the schedule's `network_time` of t, and
    embedded text, cond["text"] [B, L, D].

    With `gradient_checkpointing` a graph keeps what enters each block, and its backward pass
    computes the rest again. Raises ValueError for a prediction of another name, and for a tap
    behind the encoder.
    """

    def __init__(
        self,
        model: Any,
        schedule: NoiseSchedule,
        prediction: Prediction,
        taps: Sequence[str] = (),
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(model, schedule, taps)
        if prediction not in ("x0", "eps", "v", "flow"):
            raise ValueError(f"prediction must be x0, eps, v or flow, got {prediction!r}")
        # All layers run in `encode`, so no pass would notice such a tap by itself; and its rows may
        # have been dropped.
        if beyond := [tap for tap in self.taps if tap.startswith(DECODER)]:
            raise ValueError(
                f"the encoder ends before the layer {beyond[0]!r}; tap one of its own, e.g. "
                "mid_block"
            )
        self.prediction = prediction
        if gradient_checkpointing:
            model.enable_gradient_checkpointing()

    def arguments(self, cond: Cond) -> dict[str, Any]:
        """The network's own names for a condition."""
        return {"encoder_hidden_states": cond["text"].to(self.dtype)}

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        # diffusers' property of this name walks over all modules: a millisecond, twice a pass.
        return next(self.model.parameters()).dtype

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        """The pass over x_t [B, C, H, W] and t [B]; the decoder runs for `num_decoded` rows."""
        # Published networks were trained on the rows of their table (999, 749, ...), or on the
        # noise levels of their flow, not on t.
        told = self.schedule.network_time(t)
        with self.catch() as features, self.narrowed(num_decoded):
            (output,) = self.model(
                x_t.to(self.dtype), told, **self.arguments(cond), return_dict=False
            )
        # The output has its last rows only already; this takes the same of x_t and t.
        return Encoding(x_t, t, [output], features).last(num_decoded)

    @contextmanager
    def narrowed(self, num: int | None) -> Iterator[None]:
        """A block in which the decoder sees the last `num` rows alone; None is all."""
        # Of an up block's inputs also the skip activations and the embeddings are sliced, wherever
        # they lie in tuples and dictionaries. Inputs that have `num` rows already stay as they are.
        blocks: Sequence[nn.Module] = [] if num is None else self.model.up_blocks

        def narrow(_module: nn.Module, *entering: Any) -> Any:
            return tree_map_only(Tensor, partial(last, num=num), entering)

        hooks = [block.register_forward_pre_hook(narrow, with_kwargs=True) for block in blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self, encoding: Encoding) -> Tensor:
        """The output [B, C, H, W] that `encode` kept, as the quantity that `prediction` names."""
        return encoding.state[0]


class UNetXL(UNet):
    """SDXL's: it also reads pooled text, cond["pooled"] [B, P], and sizes and crops,
    cond["time_ids"] [B, 6].
    """

    def arguments(self, cond: Cond) -> dict[str, Any]:
        """The network's own names for a condition."""
        # Sizes stay float32 until the network has embedded them: bfloat16 makes 1024 of 1023.
        added = {"text_embeds": cond["pooled"].to(self.dtype), "time_ids": cond["time_ids"]}
        return super().arguments(cond) | {"added_cond_kwargs": added}
