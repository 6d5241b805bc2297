"""The U-Net that EDM's families share (Karras et al. 2022, App. F.2): one loop over the resolutions
builds its layers, and a pass comes in two halves, `encode` and `decode`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dmd2.nets.blocks import UNetBlock, downsample, upsample


class EncoderDecoderUNet(nn.Module):
    """Base of `DhariwalUNet` and `SongUNet`; the discriminator pays for the encoder only.

    Between the halves stands a list of batch-first tensors: the skip activations [B, C_i, H_i, W_i]
    from the input on and, last, the embedding [B, E]. Its rows may be sliced:
    `decode([s[rows] for s in encode(x, noise_labels)])`.

    A subclass makes its embedding layers, calls `add_levels`, and defines `embed`, `descend` and
    `ascend`. Where its levels differ from the plain ones, it overrides `attends_in_decoder`,
    `extend_encoder` or `extend_decoder`.
    """

    # Names of layers are those of the published weights, e.g. enc.8x8_block0 or dec.16x16_up.
    enc: nn.ModuleDict
    dec: nn.ModuleDict

    def __init__(self, label_dim: int, augment_dim: int, label_dropout: float) -> None:
        super().__init__()
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout

    def add_levels(
        self,
        block: Callable[..., UNetBlock],
        in_channels: int,
        img_resolution: int,
        widths: Sequence[int],
        num_blocks: int,
        attn_resolutions: Sequence[int],
    ) -> int:
        """Build `enc`, finest resolution first, and `dec`, coarsest first; the channels it ends on.

        `block(c_in, c_out, attention=, resample=)` makes a residual block. `widths` are the
        channels of the first convolution and then of every resolution, finest first.
        """
        # The order of construction is that of random draws and of an optimizer's parameters:
        # another would change every seed's initial weights, and make a resumed optimizer wrong.
        width, *level_widths = widths
        levels = [(img_resolution >> i, level_width) for i, level_width in enumerate(level_widths)]
        skip_widths = []  # a stack: the decoder reads the skip activations last in, first out
        self.enc = nn.ModuleDict()
        for res, level_width in levels:
            at, attention = f"{res}x{res}", res in attn_resolutions
            if not self.enc:
                self.enc[f"{at}_conv"] = nn.Conv2d(in_channels, width, 3, padding=1)
            else:
                self.enc[f"{at}_down"] = block(width, width, resample=downsample)
                self.extend_encoder(at, width)
            skip_widths.append(width)
            for i in range(num_blocks):
                self.enc[f"{at}_block{i}"] = block(width, level_width, attention=attention)
                width = level_width
                skip_widths.append(width)

        self.dec = nn.ModuleDict()
        for res, level_width in reversed(levels):
            at, attention = f"{res}x{res}", res in attn_resolutions
            if not self.dec:
                # The middle of the network attends, whatever `attn_resolutions` says.
                self.dec[f"{at}_in0"] = block(width, width, attention=True)
                self.dec[f"{at}_in1"] = block(width, width)
            else:
                self.dec[f"{at}_up"] = block(width, width, resample=upsample)
            # One block more than in the encoder, where the first layer of a level left a skip too.
            for i in range(num_blocks + 1):
                attends = attention and self.attends_in_decoder(i, num_blocks + 1)
                c_in = width + skip_widths.pop()
                self.dec[f"{at}_block{i}"] = block(c_in, level_width, attention=attends)
                width = level_width
            self.extend_decoder(at, width)
        return width

    def attends_in_decoder(self, i: int, num: int) -> bool:
        """Whether block `i` of the `num` of a decoder level with attention has attention."""
        return True

    def extend_encoder(self, at: str, width: int) -> None:
        """Add to `enc` what stands behind the downsampling to resolution `at`, e.g. "8x8"."""

    def extend_decoder(self, at: str, width: int) -> None:
        """Add to `dec` what stands behind the blocks of resolution `at`."""

    def embed(self, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor) -> Tensor:
        """Noise levels [B], one-hot classes [B, label_dim] and augmentations [B, augment_dim] to
        the embedding [B, E].
        """
        raise NotImplementedError

    def descend(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """The encoder: x [B, C, H, W] to all skip activations, from the input on."""
        raise NotImplementedError

    def ascend(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        """The decoder: skip activations, which it may pop, to the output [B, C, H, W]."""
        raise NotImplementedError

    def encode(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> list[Tensor]:
        """The state that `decode` reads, of x [B, C, H, W] and noise_labels [B] (EDM's c_noise).

        Labels are one-hot [B, label_dim] and [B, augment_dim]; None is zeros, which means no class.
        In training, `label_dropout` of the rows lose their class.
        """
        B = len(x)
        # Zeros, not a pass without labels: DDP wants every weight to take part in every pass.
        classes = x.new_zeros(B, self.label_dim) if class_labels is None else class_labels
        augments = x.new_zeros(B, self.augment_dim) if augment_labels is None else augment_labels
        if self.training and self.label_dropout:
            # A zeroed row is the unconditional twin: classifier-free guidance (Ho & Salimans 2022).
            classes = classes * (torch.rand(B, 1, device=x.device) >= self.label_dropout)
        emb = self.embed(noise_labels.expand(B), classes, augments)
        return [*self.descend(x, emb), emb]

    def decode(self, state: list[Tensor]) -> Tensor:
        """The raw output F [B, C, H, W]. `state` stays as it is: it may be decoded again."""
        *skips, emb = state  # a new list, from which `ascend` may pop
        return self.ascend(skips, emb)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Both halves: the raw output F [B, C, H, W]; arguments as of `encode`."""
        return self.decode(self.encode(x, noise_labels, class_labels, augment_labels))

    @property
    def feature_layers(self) -> list[str]:
        """Where features may be tapped: the last encoder layer of every resolution, coarsest last,
        e.g. "enc.8x8_block2".
        """
        # A later layer of a resolution takes the place of an earlier one in the dictionary.
        last = {name.split("_")[0]: name for name in self.enc}
        return [f"enc.{name}" for name in last.values()]
