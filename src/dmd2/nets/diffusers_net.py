"""Networks of diffusers as denoisers: U-Nets (`nets.unet`) and transformers (`nets.transformer`).

Such a network has no halves to call one after the other: `encode` runs all of it and keeps the
output. Forward hooks take the features, and drop the rows that nobody decodes from the inputs of
the blocks behind the last feature; where nobody decodes any, they end the pass there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding, Prediction
from dmd2.diffusion.schedules import NoiseSchedule
from dmd2.nets.checkpointing import Checkpointing, checkpointed

Tap = str | float
"""A layer's name, or a depth: 0.5 is half-way."""


class DecoderReached(Exception):
    """Ends a pass whose decoder nobody reads."""


class DiffusersNet(Denoiser):
    """Base: a network that reads x_t [B, C, H, W], the schedule's `network_time` of t, and a
    condition that its family names.

    gradient_checkpointing  What the backward pass computes again of each block.

    Raises ValueError for a prediction of another name.
    """

    folder: str
    """Of a pipeline, in which such a network is."""
    halves = ()

    def __init__(
        self,
        model: Any,
        schedule: NoiseSchedule,
        prediction: Prediction,
        taps: Sequence[str] = (),
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        super().__init__(model, schedule, taps)
        if prediction not in ("x0", "eps", "v", "flow"):
            raise ValueError(f"prediction must be x0, eps, v or flow, got {prediction!r}")
        self.prediction = prediction
        self.ends_before: tuple[nn.Module, ...] = ()
        """Where the present pass ends early. A tuple, so that it is no submodule twice."""
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            model.enable_gradient_checkpointing(self.run_block)

    def run_block(self, block: nn.Module, *args: Any) -> Any:
        """A block's result with gradient checkpointing, as diffusers calls it."""
        return checkpointed(block, self.gradient_checkpointing, *args)

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """What `prediction` names [B, C, H, W], of x [B, C, H, W] in the weights' dtype, and of
        what the schedule tells a network of t, `told` [B].
        """
        raise NotImplementedError

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """The shapes of a row of the condition that it reads, by key, with so many tokens of text;
        more than it reads, where a family's networks differ.
        """
        raise NotImplementedError

    def maps(self, features: list[Tensor], x: Tensor) -> list[Tensor]:
        """Features as maps [B, D, h, w], of what the taps gave in a pass over x [B, C, H, W]."""
        return features

    @contextmanager
    def narrowed(self, batch: int, num: int | None) -> Iterator[None]:
        """A block in which layers behind the last tap see the last `num` of `batch` rows alone;
        None is all.
        """
        raise NotImplementedError
        yield

    @property
    def decoder_start(self) -> nn.Module:
        """The first layer behind those that features are taken of."""
        raise NotImplementedError

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """A block in which a pass ends, by `DecoderReached`, where the decoder would begin."""
        model, whole = self.model, self.model.forward

        def reach(*_: Any) -> NoReturn:
            raise DecoderReached

        def forward(*args: Any, **kwargs: Any) -> Any:
            with suppress(DecoderReached):
                return whole(*args, **kwargs)

        self.ends_before = (self.decoder_start,)
        # Ahead of a block's own hooks, and behind those of the network, which run in full: FSDP2
        # gathers weights in the first and lets them go in the second.
        hooks = [
            self.decoder_start.register_forward_pre_hook(reach, prepend=True),
            model.register_forward_hook(reach),
        ]
        model.forward = forward
        try:
            yield
        finally:
            del model.forward
            self.ends_before = ()
            for hook in hooks:
                hook.remove()

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        # diffusers' property of this name walks over all modules: a millisecond, twice a pass.
        return next(self.model.parameters()).dtype

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        """The pass over x_t [B, C, H, W] and t [B]; the decoder runs for `num_decoded` rows, and
        for 0 of them not at all.
        """
        # Published networks were trained on the rows of their table (999, 749, ...), or on the
        # noise levels of their flow, not on t.
        told = self.schedule.network_time(t)
        output = x_t[:0]  # what there is of a pass that was stopped
        few = self.stopped() if num_decoded == 0 else self.narrowed(len(x_t), num_decoded)
        with self.catch() as features, suppress(DecoderReached), few:
            output = self.output(x_t.to(self.dtype), told, cond)
        # `last` leaves an output that has its last rows only already; of x_t and t it takes the
        # same.
        return Encoding(x_t, t, [output], self.maps(features, x_t)).last(num_decoded)

    def finish(self, encoding: Encoding) -> Tensor:
        """The output [B, C, H, W] that `encode` kept, as the quantity that `prediction` names."""
        return encoding.state[0]
