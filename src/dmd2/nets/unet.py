"""Text-conditioned U-Nets of diffusers as denoisers: Stable Diffusion's families, and small ones
made from a config.

A pass is not cut in two: `encode` runs all of it and keeps the output. Hooks catch the features,
and take the rows that nobody will decode out of what enters the up blocks.
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
from dmd2.diffusion.schedules import VP, NoiseSchedule
from dmd2.io.hub import PREDICTIONS, file_of

DECODER = ("up_blocks", "conv_norm_out", "conv_act", "conv_out")
"""Where the names of the decoder's layers begin."""


class UNet(Denoiser):
    """A `UNet2DConditionModel` that reads x_t, the row of t and embedded text, cond["text"] [B, L,
    D].

    With `gradient_checkpointing` a graph keeps what enters each block, and its backward pass
    computes the rest again.
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
        """The weights'. diffusers' own property walks over all modules, twice a pass: a millisecond
        each.
        """
        return next(self.model.parameters()).dtype

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        row = self.schedule.row_of_time(t)
        with self.catch() as features, self.narrowed(num_decoded):
            (output,) = self.model(
                x_t.to(self.dtype), row, **self.arguments(cond), return_dict=False
            )
        return Encoding(x_t, t, [output], features).last(num_decoded)

    @contextmanager
    def narrowed(self, num: int | None) -> Iterator[None]:
        """A block in which the decoder sees the last `num` rows alone; None is all."""
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
        return encoding.state[0]


class UNetXL(UNet):
    """SDXL's: it also reads pooled text, cond["pooled"] [B, P], and sizes and crops,
    cond["time_ids"] [B, 6].
    """

    def arguments(self, cond: Cond) -> dict[str, Any]:
        added = {"text_embeds": cond["pooled"].to(self.dtype), "time_ids": cond["time_ids"]}
        return super().arguments(cond) | {"added_cond_kwargs": added}


def from_configs(
    source: str, taps: Sequence[str], gradient_checkpointing: bool, kind: type[UNet] = UNet
) -> UNet:
    """A pipeline's denoiser as its `unet/config.json` and `scheduler/scheduler_config.json`
    describe it, untrained.

    `source` is a folder or a name on the hub. Raises FileNotFoundError where there is none,
    ValueError where the
    scheduler predicts something unknown here.
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel  # noqa: PLC0415

    file_of(source, "unet/config.json")
    scheduler = DDIMScheduler.from_pretrained(source, subfolder="scheduler")
    if (said := scheduler.config.prediction_type) not in PREDICTIONS:
        raise ValueError(
            f"{source} predicts {said}; choose one that predicts {', '.join(PREDICTIONS)}"
        )
    model = UNet2DConditionModel.from_config(
        UNet2DConditionModel.load_config(source, subfolder="unet")
    )
    return kind(
        model, VP(scheduler.alphas_cumprod), PREDICTIONS[said], taps, gradient_checkpointing
    )
