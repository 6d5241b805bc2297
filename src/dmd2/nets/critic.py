"""The critic: the fake score and, on features of it or of the frozen teacher, the GAN head."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding


class ConvHead(nn.Module):
    """One logit an image from a feature map [B, C, S, S] (DMD2's ImageNet head).

    Stride-2 convolutions down to 4x4, one 4x4 convolution to 1x1, one logit; GroupNorm and SiLU after each.
    """

    def __init__(self, shape: torch.Size, num_groups: int = 32) -> None:
        super().__init__()
        channels, size = shape[1], shape[2]
        layers: list[nn.Module] = []
        while size > 4:
            layers += self._layer(nn.Conv2d(channels, channels, 4, 2, 1), num_groups)
            size //= 2
        layers += self._layer(nn.Conv2d(channels, channels, size, size), num_groups)
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    @staticmethod
    def _layer(conv: nn.Conv2d, num_groups: int) -> list[nn.Module]:
        return [conv, nn.GroupNorm(num_groups, conv.out_channels), nn.SiLU()]

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features).flatten(1)


class VectorHead(nn.Module):
    """One logit a sample from a feature vector [B, D]."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        width = shape[1]
        self.layers = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class Head(nn.Module):
    """One small classifier a tapped level: features -> logits [B, num_levels], in float32."""

    def __init__(self, levels: Sequence[nn.Module]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, features: list[Tensor]) -> Tensor:
        with torch.autocast(features[0].device.type, enabled=False):
            return torch.cat([level(f.float()) for level, f in zip(self.levels, features, strict=True)], 1)


def head_on(denoiser: Denoiser, level: "type[nn.Module]", shape: tuple[int, ...], cond: Cond) -> Head:
    """A head whose widths come from a dry run of `denoiser` on one sample of `shape`; `level` makes one level."""
    if not denoiser.taps:
        raise ValueError("a GAN head needs features; name them with teacher.denoiser.taps=[LAYER,...]")
    with torch.no_grad():
        features = denoiser.features(torch.zeros(1, *shape), torch.ones(1), cond)
    return Head([level(feature.shape) for feature in features])


class RungVectors(nn.Module):
    """A learned vector for each of the sampler's steps, zero at first, added to a layer's output [B, E].

    So a critic tells the samples of several steps apart, which are one mixture to the paper's. `rung` is the one at
    hand, of a whole batch.
    """

    def __init__(self, layer: nn.Module, num_rungs: int, width: int) -> None:
        super().__init__()
        self.rung = 0
        self.vectors = nn.Parameter(torch.zeros(num_rungs, width))
        layer.register_forward_hook(lambda _module, _args, output: output + self.vectors[self.rung])


def rung_vectors_on(
    denoiser: Denoiser, layer: str, num_rungs: int, shape: tuple[int, ...], cond: Cond
) -> RungVectors:
    """Vectors on the layer of this name, their width from a dry run of `denoiser` on one sample of `shape`."""
    outputs: list[object] = []
    target = denoiser.layer(layer)
    hook = target.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    with torch.no_grad():
        denoiser(torch.zeros(1, *shape), torch.ones(1), cond)
    hook.remove()
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor) or outputs[0].ndim != 2:
        raise ValueError(f"rung_layer={layer} must run once a pass and give [B, E]: name one that embeds the time")
    return RungVectors(target, num_rungs, outputs[0].shape[1])


class Critic(nn.Module):
    """The fake score with its GAN head; `head` is None where no term is a GAN.

    `head_reads` says whose features the head is on: the trainable critic's own (DMD2) or the frozen teacher's.
    `rung_vectors` tell the fake score which step made its samples; None: it is not told.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        head: Head | None,
        head_reads: Literal["critic", "teacher"] = "critic",
        rung_vectors: RungVectors | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.head, self.head_reads, self.rung_vectors = denoiser, head, head_reads, rung_vectors

    def encode(self, x_t: Tensor, t: Tensor, cond: Cond, rung: int, num_decoded: int | None = None) -> Encoding:
        """The fake score's pass up to the features, over samples of one of the sampler's steps."""
        if self.rung_vectors is not None:
            self.rung_vectors.rung = rung
        return self.denoiser.encode(x_t, t, cond, num_decoded)
