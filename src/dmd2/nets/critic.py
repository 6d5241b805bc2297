"""The critic (fake score network): a denoiser trained on the generator's samples, and beside it the
discriminator, where a loss term is a GAN.
"""

from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding
from dmd2.nets.discriminator import Discriminator


class StepEmbedding(nn.Module):
    """A learned vector for each of the sampler's steps, added to the output [B, E] of `layer`.

    It tells a critic which sampling step made the samples; without it, the samples of all steps are
    one mixture, as in the paper. Set `step`, int64 [B], before a pass over B rows.
    """

    def __init__(self, layer: nn.Module, num_steps: int, width: int) -> None:
        super().__init__()
        self.step = torch.zeros(1, dtype=torch.long)
        # Zero at first, so that the critic begins as its teacher.
        self.vectors = nn.Parameter(torch.zeros(num_steps, width))
        # A hook that returns a value replaces the layer's output. No family's code needs a change.
        layer.register_forward_hook(
            lambda _module, _args, output: output + self.vectors[self.step].to(output.dtype)
        )


class _Reached(Exception):
    """A pass is over: the layer that was asked for has run."""


def step_embedding_on(
    denoiser: Denoiser, layer: str, num_steps: int, shape: tuple[int, ...], cond: Cond
) -> StepEmbedding:
    """A `StepEmbedding` on the layer of this name in `denoiser`'s network.

    Its width comes from a pass over one sample of `shape` under `cond` (one row), which ends at the
    layer. Raises ValueError unless the layer runs and gives [B, E].
    """
    output: object = None

    def stop(_module: nn.Module, _args: object, made: object) -> None:
        nonlocal output
        output = made
        raise _Reached

    target = denoiser.layer(layer, "critic_step_layer")
    hook = target.register_forward_hook(stop)
    try:
        with torch.no_grad(), suppress(_Reached):
            denoiser(torch.zeros(1, *shape), torch.ones(1), cond)
    finally:
        hook.remove()
    # A container of layers never runs, and an image [B, C, H, W] is no embedding of the time.
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise ValueError(
            f"critic_step_layer={layer} must run in a pass and give [B, E]: name one that embeds "
            "the time"
        )
    return StepEmbedding(target, num_steps, output.shape[1])


class Critic(nn.Module):
    """The fake score, and what is trained with it: all parameters of the critic's optimizer.

    denoiser                The fake score: x_t [B, ...] and t [B] to x0_hat [B, ...].
    discriminator           The GAN's classifier; None where no loss term is a GAN.
    discriminator_features  Whose features it reads: those of "critic", which is trained too (DMD2),
                            or of the frozen "teacher".
    step_embedding          Tells the fake score which sampling step made its samples; with None
                            the samples of all steps are one mixture to it.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        discriminator: Discriminator | None,
        discriminator_features: Literal["critic", "teacher"] = "critic",
        step_embedding: StepEmbedding | None = None,
    ) -> None:
        super().__init__()
        # These names begin the keys of saved weights: denoiser.*, discriminator.*, step_embedding.*
        self.denoiser, self.discriminator = denoiser, discriminator
        self.discriminator_features, self.step_embedding = discriminator_features, step_embedding

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, step: Tensor, num_decoded: int | None = None
    ) -> Encoding:
        """The fake score's pass up to the features, of x_t [B, ...] and t [B].

        Row i is of the sampler's step[i], int64 [B]. The last `num_decoded` rows, or all, may be
        decoded afterwards.
        """
        if self.step_embedding is not None:
            self.step_embedding.step = step
        return self.denoiser.encode(x_t, t, cond, num_decoded)
