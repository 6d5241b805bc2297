"""The critic: the fake score, with the discriminator beside it where a loss term is a GAN."""

from typing import Literal

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding
from dmd2.nets.discriminator import Discriminator


class StepEmbedding(nn.Module):
    """A learned vector for each of the sampler's steps, zero at first, added to a layer's output
    [B, E].

    So a critic tells the samples of several steps apart, which are one mixture to the paper's.
    `step` is the one at
    hand, of a whole batch.
    """

    def __init__(self, layer: nn.Module, num_steps: int, width: int) -> None:
        super().__init__()
        self.step = 0
        self.vectors = nn.Parameter(torch.zeros(num_steps, width))
        layer.register_forward_hook(lambda _module, _args, output: output + self.vectors[self.step])


def step_embedding_on(
    denoiser: Denoiser, layer: str, num_steps: int, shape: tuple[int, ...], cond: Cond
) -> StepEmbedding:
    """Vectors on the layer of this name, their width from a dry run of `denoiser` on one sample of
    `shape`.
    """
    outputs: list[object] = []
    target = denoiser.layer(layer)
    hook = target.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    with torch.no_grad():
        denoiser(torch.zeros(1, *shape), torch.ones(1), cond)
    hook.remove()
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor) or outputs[0].ndim != 2:
        raise ValueError(
            f"critic_step_layer={layer} must run once a pass and give [B, E]: name one that "
            "embeds the time"
        )
    return StepEmbedding(target, num_steps, outputs[0].shape[1])


class Critic(nn.Module):
    """The fake score and the GAN's discriminator, which is None where no term is a GAN.

    `discriminator_features` says whose features the discriminator reads: the trainable critic's own
    (DMD2) or the
    frozen teacher's. `step_embedding` tells the fake score which sampling step made its samples;
    None: all steps'
    samples are one mixture to it.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        discriminator: Discriminator | None,
        discriminator_features: Literal["critic", "teacher"] = "critic",
        step_embedding: StepEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.discriminator = denoiser, discriminator
        self.discriminator_features, self.step_embedding = discriminator_features, step_embedding

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, step: int, num_decoded: int | None = None
    ) -> Encoding:
        """The fake score's pass up to the features, over samples of one of the sampler's steps."""
        if self.step_embedding is not None:
            self.step_embedding.step = step
        return self.denoiser.encode(x_t, t, cond, num_decoded)
