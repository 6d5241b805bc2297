"""The families of transformers: what each reads of a noise level and a condition.

All read x_t [B, C, H, W] and cond["text"] [B, L, D]; what is more, their classes say. Where a
network is told its noise level in [0, 1], `told` is `num_rows` times that.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Prediction
from dmd2.diffusion.schedules import NoiseSchedule
from dmd2.nets.checkpointing import Checkpointing
from dmd2.nets.diffusers_net import Tap
from dmd2.nets.transformer import Transformer


class SD3(Transformer):
    """Stable Diffusion 3 and 3.5 (Esser et al. 2024): it also reads cond["pooled"] [B, P]."""

    def most_tokens(self) -> float:
        """The side of its table of places, of which an image takes the middle."""
        side: int | None = self.model.config.pos_embed_max_size
        return side or math.inf

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The velocity [B, C, H, W]."""
        text, pooled = (cond[name].to(x.dtype) for name in ("text", "pooled"))
        return self.model(x, text, pooled, told, return_dict=False)[0]


class AuraFlow(Transformer):
    """AuraFlow: text whose padding the encoder has set to zero."""

    stacks = ("joint_transformer_blocks", "single_transformer_blocks")

    def most_tokens(self) -> float:
        """The side of its learned table of places; beyond, diffusers would take wrong ones."""
        return math.isqrt(self.model.config.pos_embed_max_size)

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The velocity [B, C, H, W]."""
        level = told / self.schedule.num_rows
        return self.model(x, cond["text"].to(x.dtype), level, return_dict=False)[0]


class Sana(Transformer):
    """SANA (Xie et al. 2024): it also reads cond["mask"], bool [B, L]."""

    text_width = "caption_channels"

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The velocity [B, C, H, W]."""
        return self.model(
            x,
            cond["text"].to(x.dtype),
            told * self.model.config.timestep_scale,
            encoder_attention_mask=cond["mask"].to(x.dtype),
            return_dict=False,
        )[0]


class PixArt(Transformer):
    """PixArt-alpha and -Sigma (Chen et al. 2023, 2024): it reads cond["mask"], bool [B, L], and the
    row of a table; half of its output channels are a variance, which nobody reads here.
    """

    text_width = "caption_channels"

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The noise [B, C, H, W]."""
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.model.use_additional_conditions:
            # Height and width in pixels, of which its VAE makes an eighth.
            height, width = (8 * size for size in x.shape[-2:])
            # Filled on the device: a copy from the host would wait for it.
            size = torch.stack([x.new_full((len(x),), height), x.new_full((len(x),), width)], 1)
            added = {"resolution": size, "aspect_ratio": x.new_full((len(x), 1), height / width)}
        return self.model(
            x,
            cond["text"].to(x.dtype),
            told,
            added,
            encoder_attention_mask=cond["mask"].to(x.dtype),
            return_dict=False,
        )[0][:, : x.shape[1]]


class DiT(Transformer):
    """DiT (Peebles & Xie 2023): no text but cond["label"] [B, num_classes], one-hot or zeros for no
    class; of its output's channels the half that is no variance.
    """

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError as of `Transformer`, and where the image is no square."""
        super().check_size(height, width)
        # diffusers takes the root of the number of tokens for both sides.
        if height != width:
            raise ValueError("the network makes squares alone")

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The noise [B, C, H, W]."""
        # The number behind the last class is the table's row for no class.
        label = cond["label"]
        none = label.new_full((len(label),), label.shape[1], dtype=torch.long)
        number = torch.where(label.any(1), label.argmax(1), none)
        return self.model(x, told, number, return_dict=False)[0][:, : x.shape[1]]


class Packed(Transformer):
    """Base of families whose tokens are made outside of the network."""

    @staticmethod
    def patch_of(config: Mapping[str, Any]) -> int:
        """2: the config's `patch_size` counts tokens."""
        return 2

    def pack(self, x: Tensor) -> Tensor:
        """Tokens [B, (H/p)(W/p), p p C] of x [B, C, H, W], of p x p pixels: row by row; in each,
        channel by channel.
        """
        p = self.patch_of(self.model.config)
        squares = x.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # [B, C, H/p, p, W/p, p]
        return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def unpack(self, tokens: Tensor, x: Tensor) -> Tensor:
        """The inverse of `pack`: [B, C, H, W], of the shape of x."""
        p = self.patch_of(self.model.config)
        _, channels, height, width = x.shape
        squares = tokens.unflatten(2, (channels, p, p)).unflatten(1, (height // p, width // p))
        return squares.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


class Flux(Packed):
    """FLUX.1 (Black Forest Labs 2024): it also reads cond["pooled"] [B, P], and where the network
    embeds a guidance scale, `embedded_guidance`: the same for teacher, critic and student.

    Raises ValueError where the network embeds a scale and there is none, or the reverse.
    """

    stacks = ("transformer_blocks", "single_transformer_blocks")

    def __init__(
        self,
        model: Any,
        schedule: NoiseSchedule,
        prediction: Prediction = "flow",
        taps: Sequence[Tap] = (),
        gradient_checkpointing: Checkpointing = False,
        embedded_guidance: float | None = None,
    ) -> None:
        super().__init__(model, schedule, prediction, taps, gradient_checkpointing)
        if model.config.guidance_embeds != (embedded_guidance is not None):
            raise ValueError(
                "the network reads a guidance scale; type e.g. teacher.embedded_guidance=3.5"
                if embedded_guidance is None
                else "the network reads no guidance scale; type teacher.embedded_guidance=null"
            )
        self.embedded_guidance = embedded_guidance

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The velocity [B, C, H, W]."""
        scale = self.embedded_guidance
        tokens = self.model(
            self.pack(x),
            cond["text"].to(x.dtype),
            cond["pooled"].to(x.dtype),
            told / self.schedule.num_rows,
            places(x, 2, columns=3),
            told.new_zeros(cond["text"].shape[1], 3),
            None if scale is None else torch.full_like(told, scale),
            return_dict=False,
        )[0]
        return self.unpack(tokens, x)


class Flux2(Flux):
    """FLUX.2 (Black Forest Labs 2025): x_t has a token in each pixel, and places have four columns,
    of which the last counts the text.
    """

    @staticmethod
    def patch_of(config: Mapping[str, Any]) -> int:
        """1: its autoencoder has made one pixel of 2 x 2."""
        return 1

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The velocity [B, C, H, W]."""
        scale, text = self.embedded_guidance, cond["text"].to(x.dtype)
        order = torch.arange(text.shape[1], device=x.device)
        tokens = self.model(
            self.pack(x),
            text,
            told / self.schedule.num_rows,
            places(x, 1, columns=4),
            nn.functional.pad(order[:, None], (3, 0)),
            None if scale is None else torch.full_like(told, scale),
            return_dict=False,
        )[0]
        return self.unpack(tokens, x)


class Chroma(Packed):
    """Chroma (Lodestone 2025): FLUX.1 without pooled text and guidance; it reads cond["mask"], bool
    [B, L]: the text and the first of its padding.
    """

    stacks = ("transformer_blocks", "single_transformer_blocks")

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The velocity [B, C, H, W]."""
        tokens = self.pack(x)
        # Bool, where diffusers' pipeline gives floats, which attention adds and does not mask by.
        self.mask = nn.functional.pad(cond["mask"], (0, tokens.shape[1]), value=True)
        output = self.model(
            tokens,
            cond["text"].to(x.dtype),
            told / self.schedule.num_rows,
            places(x, 2, columns=3),
            told.new_zeros(cond["text"].shape[1], 3),
            self.mask,
            return_dict=False,
        )[0]
        return self.unpack(output, x)

    def run_block(self, block: nn.Module, *args: Any) -> Any:
        """A block's result with gradient checkpointing, as diffusers calls it."""
        # diffusers hands the mask to blocks of two streams, and forgets those of one, whose inputs
        # are tokens, modulation and rotation.
        return super().run_block(block, *args, *([self.mask] if len(args) == 3 else []))


class QwenImage(Packed):
    """Qwen-Image (Wu et al. 2025): it also reads cond["mask"], bool [B, L]."""

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The velocity [B, C, H, W]."""
        height, width = (size // 2 for size in x.shape[-2:])
        tokens = self.model(
            self.pack(x),
            cond["text"].to(x.dtype),
            cond["mask"],
            told / self.schedule.num_rows,
            [[(1, height, width)]] * len(x),
            return_dict=False,
        )[0]
        return self.unpack(tokens, x)


class ZImage(Transformer):
    """Z-Image (Tongyi 2025): it is told 1 - sigma and gives the negative velocity; images and texts
    are lists, the texts without padding, as cond["mask"], bool [B, L], says.
    """

    stacks = ("layers",)
    final = "all_final_layer.2-1"
    text_width = "cap_feat_dim"

    @staticmethod
    def patch_of(config: Mapping[str, Any]) -> int:
        """2, the only one that is published; the network takes several."""
        return 2

    def most_tokens(self) -> float:
        """The shorter of its tables of rotations for rows and columns."""
        return min(self.model.config.axes_lens[1:])

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The velocity [B, C, H, W]."""
        texts = [
            row[mask] for row, mask in zip(cond["text"].to(x.dtype), cond["mask"], strict=True)
        ]
        level = 1 - told / self.schedule.num_rows
        (output,) = self.model(list(x.unsqueeze(2)), level, texts, return_dict=False)
        return -torch.stack(list(output)).squeeze(2)

    def image_tokens(self, feature: Any, num: int) -> Tensor:
        """The image's `num` tokens [B, num, D] of what a layer gave: the first, before the text."""
        return feature[:, :num]


def places(x: Tensor, patch: int, columns: int) -> Tensor:
    """The place of each token of x [B, C, H, W], [N, columns]: 0, row, column, and 0 behind."""
    height, width = (size // patch for size in x.shape[-2:])
    found = torch.zeros(height, width, columns, device=x.device)
    found[..., 1] = torch.arange(height, device=x.device)[:, None]
    found[..., 2] = torch.arange(width, device=x.device)
    return found.flatten(0, 1)
