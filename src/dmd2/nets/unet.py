"""Text-conditioned U-Nets of diffusers as denoisers: Stable Diffusion's families, and small ones made from a config.

A pass is not cut in two: `encode` runs all of it and keeps the output, while forward hooks catch the features. Where
the head reads them, real samples and recorded graphs so pay for the decoder as well; nothing else changes.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dmd2.conditioning import Cond
from dmd2.nets.denoiser import Denoiser, Encoding, Prediction
from dmd2.pipelines import PREDICTIONS, file_of
from dmd2.schedules import VP, NoiseSchedule


class UNet(Denoiser):
    """A `UNet2DConditionModel` that reads x_t, the row of t and embedded text, cond["text"] [B, L, D].

    With `gradient_checkpointing` a graph keeps what enters each block, and its backward pass computes the rest again.
    """

    def __init__(
        self, model: Any, schedule: NoiseSchedule, prediction: Prediction, taps: Sequence[str] = (),
        gradient_checkpointing: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, schedule, taps)
        if prediction not in ("x0", "eps", "v", "flow"):
            raise ValueError(f"prediction must be x0, eps, v or flow, got {prediction!r}")
        self.prediction = prediction
        if gradient_checkpointing:
            model.enable_gradient_checkpointing()

    def arguments(self, cond: Cond) -> dict[str, Any]:
        """The network's own names for a condition."""
        return {"encoder_hidden_states": cond["text"].to(self.model.dtype)}

    def encode(self, x_t: Tensor, t: Tensor, cond: Cond) -> Encoding:
        row = self.schedule.row_of_time(t)
        with self.catch() as features:
            (output,) = self.model(x_t.to(self.model.dtype), row, **self.arguments(cond), return_dict=False)
        return Encoding(x_t, t, [output], features)

    def finish(self, encoding: Encoding) -> Tensor:
        return encoding.state[0]


class UNetXL(UNet):
    """SDXL's: it also reads pooled text, cond["pooled"] [B, P], and sizes and crops, cond["time_ids"] [B, 6]."""

    def arguments(self, cond: Cond) -> dict[str, Any]:
        added = {"text_embeds": cond["pooled"].to(self.model.dtype), "time_ids": cond["time_ids"]}
        return super().arguments(cond) | {"added_cond_kwargs": added}


def from_configs(
    source: str, kind: type[UNet] = UNet, taps: Sequence[str] = (), gradient_checkpointing: bool = False
) -> UNet:
    """A pipeline's denoiser as its `unet/config.json` and `scheduler/scheduler_config.json` describe it, untrained.

    `source` is a folder or a name on the hub. Raises FileNotFoundError where there is none, ValueError where the
    scheduler predicts something unknown here.
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel  # noqa: PLC0415

    file_of(source, "unet/config.json")
    scheduler = DDIMScheduler.from_pretrained(source, subfolder="scheduler")
    if (said := scheduler.config.prediction_type) not in PREDICTIONS:
        raise ValueError(f"{source} predicts {said}; choose one that predicts {', '.join(PREDICTIONS)}")
    model = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(source, subfolder="unet"))
    return kind(model, VP(scheduler.alphas_cumprod), PREDICTIONS[said], taps, gradient_checkpointing)
