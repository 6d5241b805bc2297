"""The ADM U-Net (Dhariwal & Nichol 2021) as EDM trains it on ImageNet-64 (Karras et al. 2022, App.
F.2).
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmd2.nets.blocks import PositionalPhase, UNetBlock, group_norm
from dmd2.nets.checkpointing import Checkpointing
from dmd2.nets.encoder_decoder import EncoderDecoderUNet


class ADMBlock(UNetBlock):
    """Residual block whose second norm is scaled and shifted by the embedding (AdaGN)."""

    affine_width = 2  # scale and shift
    channels_per_head = 64

    def modulate(self, h: Tensor, params: Tensor) -> Tensor:
        """silu((1 + scale) norm(h) + shift), of h [B, C, H, W] and params [B, 2C, 1, 1]."""
        scale, shift = params.chunk(2, dim=1)
        return F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))

    def join(self, branch: Tensor, trunk: Tensor) -> Tensor:
        """The plain sum of two [B, C, H, W]."""
        return branch + trunk


class DhariwalUNet(EncoderDecoderUNet):
    """ADM with attention heads of 64 channels. A fresh network's output is zero."""

    def __init__(
        self,
        img_resolution: int,  # Height and width of the images.
        in_channels: int,  # Colours in.
        out_channels: int,  # Colours out.
        label_dim: int = 0,  # Number of classes, 0 for an unconditional network.
        augment_dim: int = 0,  # Width of the augmentation labels, 0 for none.
        model_channels: int = 192,  # Channels per unit of channel_mult.
        channel_mult: Sequence[int] = (1, 2, 3, 4),  # Width of each resolution, finest first.
        channel_mult_emb: int = 4,  # Width of the embedding.
        num_blocks: int = 3,  # Residual blocks per resolution.
        attn_resolutions: Sequence[int] = (32, 16, 8),  # Resolutions with self-attention.
        dropout: float = 0.10,  # Dropout inside the residual blocks.
        label_dropout: float = 0.0,  # Share of rows that lose their class in training.
        gradient_checkpointing: Checkpointing = False,  # What blocks compute again.
    ) -> None:
        super().__init__(label_dim, augment_dim, label_dropout)
        emb_channels = model_channels * channel_mult_emb
        self.map_noise = PositionalPhase(model_channels // 2, last=model_channels // 2)
        self.map_augment = (
            nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        )
        self.map_layer0 = nn.Linear(model_channels, emb_channels)
        self.map_layer1 = nn.Linear(emb_channels, emb_channels)
        # Made last, unlike `SongUNet`'s: the order of construction is the order of random draws.
        self.map_label = nn.Linear(label_dim, emb_channels, bias=False) if label_dim else None

        # The first convolution is as wide as the finest level, which comes again after it.
        block = partial(
            ADMBlock,
            emb_channels=emb_channels,
            dropout=dropout,
            gradient_checkpointing=gradient_checkpointing,
        )
        widths = [model_channels * mult for mult in (channel_mult[0], *channel_mult)]
        width = self.add_levels(
            block, in_channels, img_resolution, widths, num_blocks, attn_resolutions
        )
        self.out_norm = group_norm(width, eps=1e-5)
        self.out_conv = nn.Conv2d(width, out_channels, 3, padding=1)
        self.init_weights()

    def init_weights(self) -> None:
        """ADM's init: U(+-fan_in^-1/2), which is torch's own, and zero for the last layer of every
        branch.
        """
        for block in self.modules():
            if isinstance(block, ADMBlock):
                # A fresh branch is zero, so that a block passes on its trunk alone.
                zero(block.conv1)
                if block.num_heads:
                    zero(block.proj)
        zero(self.out_conv)
        if self.map_augment is not None:
            zero(self.map_augment)
        if self.map_label is not None:
            # N(0, 1): of a one-hot input a single entry counts, so the fan-in is one.
            nn.init.normal_(self.map_label.weight)

    def embed(self, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor) -> Tensor:
        """Noise levels [B], classes and augmentations to [B, E]: the augmentation is added before
        the two layers, the class behind them.
        """
        phase = self.map_noise(noise_labels)
        # Cosines first, as the published weights want it; `SongUNet` has the sines first.
        emb = torch.cat([phase.cos(), phase.sin()], dim=1)
        if self.map_augment is not None:
            emb = emb + self.map_augment(augment_labels)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            emb = emb + self.map_label(class_labels)
        return F.silu(emb)

    def descend(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """x [B, C, H, W] to the skip activations: every encoder layer's output."""
        skips = []
        for module in self.enc.values():
            x = module(x, emb) if isinstance(module, ADMBlock) else module(x)
            skips.append(x)
        return skips

    def ascend(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        """Skip activations to the output [B, C, H, W]."""
        # The coarsest activation is read twice: here, and as the skip of the first "block".
        x = skips[-1]
        for name, block in self.dec.items():
            x = block(x, emb, skips.pop() if "block" in name else None)
        return self.out_conv(F.silu(self.out_norm(x)))


def zero(layer: nn.Module) -> None:
    """Set all parameters of a layer to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
