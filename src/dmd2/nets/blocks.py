"""Building blocks of EDM's U-Nets (Karras et al. 2022, App. F.2): embedding of the noise level,
resampling, residual blocks with self-attention.

Parameters carry the names of the published weights, so that a checkpoint loads with `strict=True`.
Nothing here casts: mixed precision is the caller's autocast. Images are [B, C, H, W] in any memory
format.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmd2.nets.checkpointing import Checkpointing, checkpointed

# (x [B, C, H, W], filter [1, 1, K, K]) -> x at twice or half the size
Resampler = Callable[[Tensor, Tensor], Tensor]


class PositionalPhase(nn.Module):
    """Angles t * 10000^(-i / last) for i < num_phases (Vaswani et al. 2017); the caller takes their
    sines and cosines.

    With `last = num_phases - 1` the slowest frequency is 1/10000 (DDPM++). With `last = num_phases`
    the frequencies end one step before it (ADM).
    """

    def __init__(self, num_phases: int, last: int) -> None:
        super().__init__()
        self.num_phases, self.last = num_phases, last

    def forward(self, t: Tensor) -> Tensor:
        """Noise levels [B] to angles [B, num_phases]."""
        # In float32 always: bfloat16 would merge neighbouring noise levels.
        i = torch.arange(self.num_phases, device=t.device, dtype=torch.float32)
        return t[:, None] * (1 / 10000) ** (i / self.last)


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Group norm with at least four channels a group and at most 32 groups."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps)


def separable_filter(taps: Sequence[float]) -> Tensor:
    """Outer product of `taps` with itself, summing to one: [1, 1, K, K].

    Raises ValueError unless there is an even number of taps, symmetric about their middle.
    """
    # An odd filter is centred on a pixel and not between two: `downsample` would shift the image by
    # half a pixel. `upsample` flips the filter, which makes no difference to a symmetric one.
    if len(taps) % 2 or list(taps) != list(taps)[::-1]:
        raise ValueError(
            f"resample_filter must be even and symmetric, got {list(taps)}; e.g. [1, 3, 3, 1]"
        )
    f = torch.tensor(list(taps), dtype=torch.float32)
    return (f.outer(f) / f.sum() ** 2)[None, None]


def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter, then keep every second pixel: [B, C, H, W] -> [B, C, H/2, W/2]."""
    C, K = x.shape[1], kernel.shape[-1]
    if K == 2:  # The only symmetric filter of two taps is the box, and pooling is faster.
        return F.avg_pool2d(x, 2)
    return F.conv2d(x, kernel.expand(C, 1, K, K), groups=C, stride=2, padding=(K - 1) // 2)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Insert zeros between pixels, then filter: [B, C, H, W] -> [B, C, 2H, 2W]."""
    C, K = x.shape[1], kernel.shape[-1]
    if K == 2:  # the box again: every pixel becomes four
        return F.interpolate(x, scale_factor=2, mode="nearest")
    # Gain 4, since three of four pixels that the filter averages are the inserted zeros.
    return F.conv_transpose2d(
        x, 4 * kernel.expand(C, 1, K, K), groups=C, stride=2, padding=(K - 1) // 2
    )


class Resample(nn.Module):
    """`resample` (`downsample` or `upsample`) as a module."""

    resample_filter: Tensor

    def __init__(self, resample: Resampler, taps: Sequence[float]) -> None:
        super().__init__()
        self.resample = resample
        # Persistent, and of this name, because published checkpoints hold it.
        self.register_buffer("resample_filter", separable_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] at half or twice the size."""
        return self.resample(x, self.resample_filter)


class ResampledConv(nn.Conv2d):
    """Resampling followed by a convolution that keeps the size."""

    resample_filter: Tensor

    def __init__(
        self, c_in: int, c_out: int, size: int, resample: Resampler, taps: Sequence[float]
    ) -> None:
        super().__init__(c_in, c_out, size, padding=size // 2)
        self.resample = resample
        self.register_buffer("resample_filter", separable_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] to [B, c_out, H', W'], with H' = H/2 or 2H."""
        return super().forward(self.resample(x, self.resample_filter))


class UNetBlock(nn.Module):
    """Residual block: norm, conv, modulation by the embedding, conv; then self-attention, where
    `attention` asks for it.

    Subclasses define how the embedding enters (`modulate`, which reads `affine_width` values a
    channel) and how a branch is added to its trunk (`join`). A resampling block keeps its number of
    channels.
    """

    eps = 1e-5  # of the group norms
    affine_width = 1
    channels_per_head: int | None = None  # None: one head of all channels

    def __init__(
        self,
        c_in: int,
        c_out: int,
        emb_channels: int,
        *,
        dropout: float,
        gradient_checkpointing: Checkpointing,
        attention: bool = False,
        resample: Resampler | None = None,
        taps: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.num_heads = max(c_out // (self.channels_per_head or c_out), 1) if attention else 0
        # The order of these lines is the order of random draws: initial weights depend on it.
        self.norm0 = group_norm(c_in, self.eps)
        self.affine = nn.Linear(emb_channels, c_out * self.affine_width)
        self.norm1 = group_norm(c_out, self.eps)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip: nn.Module = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        if resample is None:
            self.conv0 = nn.Conv2d(c_in, c_out, 3, padding=1)
        else:
            assert c_in == c_out
            self.conv0 = ResampledConv(c_in, c_out, 3, resample, taps)
            self.skip = self.resampled_skip(c_in, resample, taps)
        if attention:
            self.norm2 = group_norm(c_out, self.eps)
            self.qkv = nn.Conv2d(c_out, 3 * c_out, 1)
            self.proj = nn.Conv2d(c_out, c_out, 1)

    def resampled_skip(
        self, channels: int, resample: Resampler, taps: Sequence[float]
    ) -> nn.Module:
        """The trunk's way past a resampling branch."""
        return Resample(resample, taps)

    def modulate(self, h: Tensor, params: Tensor) -> Tensor:
        """Normalise and activate h [B, C, H, W], steered by params [B, affine_width * C, 1, 1]."""
        raise NotImplementedError

    def join(self, branch: Tensor, trunk: Tensor) -> Tensor:
        """The sum of a residual branch and its trunk, [B, C, H, W] each, in the family's scale."""
        raise NotImplementedError

    def forward(self, x: Tensor, emb: Tensor, from_encoder: Tensor | None = None) -> Tensor:
        """[B, c_in, H, W] and [B, emb_channels] -> [B, c_out, H', W'].

        In a decoder the last of the c_in channels are an activation `from_encoder` [B, C, H, W].
        """
        return checkpointed(self.run, self.gradient_checkpointing, x, emb, from_encoder)

    def run(self, x: Tensor, emb: Tensor, from_encoder: Tensor | None) -> Tensor:
        """As `forward`, with a graph that keeps everything."""
        # Here, so that a checkpoint keeps the two parts, one of which the encoder keeps anyway.
        x = x if from_encoder is None else torch.cat([x, from_encoder], dim=1)
        h = self.conv0(F.silu(self.norm0(x)))
        h = self.modulate(h, self.affine(emb)[:, :, None, None])
        x = self.join(self.conv1(self.dropout(h)), self.skip(x))
        return self.join(self.proj(self.attend(self.norm2(x))), x) if self.num_heads else x

    def attend(self, x: Tensor) -> Tensor:
        """Self-attention over the pixels of x [B, C, H, W]."""
        B, C, H, W = x.shape
        # In the published weights a channel of qkv is (head, depth, which of q, k, v).
        qkv = self.qkv(x).reshape(B, self.num_heads, C // self.num_heads, 3, H * W)
        q, k, v = qkv.permute(3, 0, 1, 4, 2).contiguous().unbind()  # [B, heads, HW, depth] each
        return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(B, C, H, W)
