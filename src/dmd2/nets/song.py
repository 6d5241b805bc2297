"""DDPM++ and NCSN++ (Song et al. 2021) as EDM trains them (Karras et al. 2022, App. F.2).

| network | embedding  | encoder  | decoder  | channel_mult_noise | resample_filter |
|---------|------------|----------|----------|--------------------|-----------------|
| DDPM++  | positional | standard | standard | 1                  | [1, 1]          |
| NCSN++  | fourier    | residual | standard | 2                  | [1, 3, 3, 1]    |
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmd2.nets import blocks
from dmd2.nets.blocks import Resample, ResampledConv, Resampler, UNetBlock, downsample, upsample
from dmd2.nets.checkpointing import Checkpointing
from dmd2.nets.encoder_decoder import EncoderDecoderUNet

Embedding = Literal["positional", "fourier"]
Encoder = Literal["standard", "skip", "residual"]
Decoder = Literal["standard", "skip"]


class FourierPhase(nn.Module):
    """Angles 2 pi f t with fixed f ~ N(0, scale^2) (Tancik et al. 2020); the caller takes their
    sines and cosines.
    """

    freqs: Tensor

    def __init__(self, num_phases: int, scale: float = 16.0) -> None:
        super().__init__()
        # Drawn, not learned, and saved: another draw would make trained weights useless.
        self.register_buffer("freqs", torch.randn(num_phases) * scale)

    def forward(self, t: Tensor) -> Tensor:
        """Noise levels [B] to angles [B, num_phases]."""
        return t[:, None] * (2 * math.pi * self.freqs)


class FilteredConv(nn.Conv2d):
    """3x3 convolution, then filter and halve: a level of NCSN++'s residual input pyramid."""

    resample_filter: Tensor

    def __init__(self, c_in: int, c_out: int, taps: Sequence[float]) -> None:
        # All padding is done before the convolution, so that the filter, which has none, sees no
        # zeros at the border. The published weights were trained like this.
        super().__init__(c_in, c_out, 3, padding=1 + (len(taps) - 1) // 2)
        self.register_buffer("resample_filter", blocks.separable_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] to [B, c_out, H/2, W/2]."""
        kernel = self.resample_filter.expand(self.out_channels, -1, -1, -1)
        return F.conv2d(super().forward(x), kernel, groups=self.out_channels, stride=2)


class SongBlock(UNetBlock):
    """Residual block that adds the embedding before the second norm and keeps the variance of its
    trunk.
    """

    eps = 1e-6

    def resampled_skip(
        self, channels: int, resample: Resampler, taps: Sequence[float]
    ) -> nn.Module:
        """Resampling and a 1x1 convolution, where ADM only resamples."""
        return ResampledConv(channels, channels, 1, resample, taps)

    def modulate(self, h: Tensor, params: Tensor) -> Tensor:
        """silu(norm(h + params)), of h [B, C, H, W] and params [B, C, 1, 1]."""
        return F.silu(self.norm1(h + params))

    def join(self, branch: Tensor, trunk: Tensor) -> Tensor:
        """The sum of two [B, C, H, W] over sqrt(2): it keeps the variance of independent ones."""
        return (branch + trunk) * math.sqrt(0.5)


class SongUNet(EncoderDecoderUNet):
    """DDPM++ or NCSN++, with single-headed attention. A fresh network's output is nearly zero."""

    def __init__(
        self,
        img_resolution: int,  # Height and width of the images.
        in_channels: int,  # Colours in.
        out_channels: int,  # Colours out.
        label_dim: int = 0,  # Number of classes, 0 for an unconditional network.
        augment_dim: int = 0,  # Width of the augmentation labels, 0 for none.
        model_channels: int = 128,  # Channels per unit of channel_mult.
        channel_mult: Sequence[int] = (1, 2, 2, 2),  # Width of each resolution, finest first.
        channel_mult_emb: int = 4,  # Width of the embedding.
        num_blocks: int = 4,  # Residual blocks per resolution.
        attn_resolutions: Sequence[int] = (16,),  # Resolutions with self-attention.
        dropout: float = 0.10,  # Dropout inside the residual blocks.
        label_dropout: float = 0.0,  # Share of rows that lose their class in training.
        embedding_type: Embedding = "positional",  # How the noise level is embedded.
        channel_mult_noise: int = 1,  # Width of that embedding.
        # Whether and how a pyramid of inputs joins the encoder.
        encoder_type: Encoder = "standard",
        decoder_type: Decoder = "standard",  # Whether the output is summed over a pyramid.
        resample_filter: Sequence[int] = (1, 1),  # Taps of the resampling filter.
        gradient_checkpointing: Checkpointing = False,  # What blocks compute again.
    ) -> None:
        super().__init__(label_dim, augment_dim, label_dropout)
        kinds = (Embedding, Encoder, Decoder)
        for got, kind in zip((embedding_type, encoder_type, decoder_type), kinds, strict=True):
            if got not in get_args(kind):
                raise ValueError(
                    f"there is no {got!r} here, only {get_args(kind)}; DDPM++ takes the first"
                )
        emb_channels = model_channels * channel_mult_emb
        noise_channels = model_channels * channel_mult_noise
        num_phases = noise_channels // 2  # each gives a sine and a cosine
        self.map_noise: nn.Module = (
            blocks.PositionalPhase(num_phases, last=num_phases - 1)
            if embedding_type == "positional"
            else FourierPhase(num_phases)
        )
        self.map_label = nn.Linear(label_dim, noise_channels) if label_dim else None
        self.map_augment = (
            nn.Linear(augment_dim, noise_channels, bias=False) if augment_dim else None
        )
        self.map_layer0 = nn.Linear(noise_channels, emb_channels)
        self.map_layer1 = nn.Linear(emb_channels, emb_channels)

        # What the hooks below read while the levels are built.
        self.encoder_type, self.decoder_type = encoder_type, decoder_type
        self.taps, self.out_channels = resample_filter, out_channels
        self.pyramid_width = in_channels  # channels of the input pyramid at the level before
        block = partial(
            SongBlock,
            emb_channels=emb_channels,
            dropout=dropout,
            gradient_checkpointing=gradient_checkpointing,
            taps=resample_filter,
        )
        widths = [model_channels * mult for mult in (1, *channel_mult)]
        width = self.add_levels(
            block, in_channels, img_resolution, widths, num_blocks, attn_resolutions
        )
        if decoder_type == "standard":  # one output, at the finest resolution
            self.add_output(f"{img_resolution}x{img_resolution}", width)
        self.init_weights()

    def attends_in_decoder(self, i: int, num: int) -> bool:
        """Only the last block of a level."""
        return i == num - 1

    def extend_encoder(self, at: str, width: int) -> None:
        """Layers by which the input joins a level: filtered alone (skip), or by convolutions on
        those of the level before (residual).
        """
        if self.encoder_type == "skip":
            self.enc[f"{at}_aux_down"] = Resample(downsample, self.taps)
            self.enc[f"{at}_aux_skip"] = nn.Conv2d(self.pyramid_width, width, 1)
        if self.encoder_type == "residual":
            self.enc[f"{at}_aux_residual"] = FilteredConv(self.pyramid_width, width, self.taps)
            self.pyramid_width = width

    def extend_decoder(self, at: str, width: int) -> None:
        """Layers by which a level adds to the output pyramid, where there is one."""
        if self.decoder_type == "skip":
            if f"{at}_up" in self.dec:  # At the coarsest resolution there is no sum yet.
                self.dec[f"{at}_aux_up"] = Resample(upsample, self.taps)
            self.add_output(at, width)

    def add_output(self, at: str, width: int) -> None:
        """Layers that make an image of a decoder level's activations [B, width, H, W]."""
        self.dec[f"{at}_aux_norm"] = blocks.group_norm(width, eps=1e-6)
        self.dec[f"{at}_aux_conv"] = nn.Conv2d(width, self.out_channels, 3, padding=1)

    def init_weights(self) -> None:
        """Song's init: Xavier uniform, nearly zero for the last layer of every branch; biases are
        zero.
        """
        gains = {"conv1": 1e-5, "proj": 1e-5, "qkv": math.sqrt(0.2)}
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                gain = 1e-5 if name.endswith("aux_conv") else gains.get(name.split(".")[-1], 1.0)
                nn.init.xavier_uniform_(module.weight, gain)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed(self, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor) -> Tensor:
        """Noise levels [B], classes and augmentations to [B, E]: both labels are added before the
        two layers.
        """
        phase = self.map_noise(noise_labels)
        emb = torch.cat([phase.sin(), phase.cos()], dim=1)  # sines first, unlike ADM
        if self.map_label is not None:
            # One-hot rows have variance 1 / label_dim about; the factor brings them to unit scale.
            emb = emb + self.map_label(class_labels * math.sqrt(self.label_dim))
        if self.map_augment is not None:
            emb = emb + self.map_augment(augment_labels)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

    def descend(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """x [B, C, H, W] to the skip activations, into which the input pyramid is added."""
        pyramid = x  # the input at lower and lower resolutions
        skips: list[Tensor] = []
        for name, module in self.enc.items():
            # The pyramid joins the output of the downsampling block before it, whose skip
            # activation is replaced: the decoder reads the sum.
            if name.endswith("aux_down"):
                pyramid = module(pyramid)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + module(pyramid)
            elif name.endswith("aux_residual"):
                x = skips[-1] = pyramid = (x + module(pyramid)) * math.sqrt(0.5)
            else:
                x = module(x, emb) if isinstance(module, SongBlock) else module(x)
                skips.append(x)
        return skips

    def ascend(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        """Skip activations to the output [B, C, H, W]."""
        x = normed = skips[-1]
        image = x.new_zeros(())  # the sum of the outputs so far
        for name, module in self.dec.items():
            if name.endswith("aux_up"):
                image = module(image)
            elif name.endswith("aux_norm"):
                normed = F.silu(module(x))
            elif name.endswith("aux_conv"):
                image = image + module(normed)
            else:
                x = module(x, emb, skips.pop() if "block" in name else None)
        return image
