"""Pixels to latents and back, by the VAE of a pipeline of diffusers or by a tiny one (TAESD).

latents = (z - shift) scaling_factor, with z as the VAE makes and reads it. Images are [B, 3, H, W]
in [-1, 1], latents [B, channels, H / factor, W / factor].
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dmd2.io.hub import (
    COUNT,
    NUMBER,
    POSITIVE,
    Kind,
    check_keys,
    config_in,
    dtype_of,
    list_of,
    named_in_errors,
    or_null,
    variant_of,
)
from dmd2.io.pretrained import check_known, read_whole
from dmd2.nets.tiles import decoded_in_tiles


class VAE:
    """An `AutoencoderKL` of diffusers, frozen. Its weights are read when it first works.

    source          Folder or name on the hub of a pipeline, or of a VAE alone (`subfolder: ""`).
    resolution      Height and width of the images.
    scaling_factor  What the teacher's latents are multiplied by; the VAE's own must be the same.
    channels        Channels of the latents.
    factor          Image pixels per latent pixel, along one side.
    subfolder       The VAE's folder in `source`.
    dtype           What weights are held as and computed in.
    at_once         Images in one pass of the network: activations at full resolution are large.
    variant         Variant of its file, e.g. fp16; without one the plain file is read.
    tile            Height and width in pixels of the tiles in which images are decoded, which
                    changes them a little where the network has norms; None: as wholes.

    Raises ValueError where `resolution` or `tile` is no multiple of `factor`.
    """

    kind = "AutoencoderKL"  # the class's name in diffusers, which is imported late
    unsupported: tuple[str, ...] = ("latents_mean", "latents_std")
    """Keys of the file that change the latents and are not read here."""
    read: ClassVar[dict[str, Kind]] = {
        "scaling_factor": POSITIVE,
        "shift_factor": or_null(NUMBER),
        "latent_channels": COUNT,
        "block_out_channels": list_of(COUNT),
    }
    """Keys of the file that are read here, and their values."""

    def __init__(
        self,
        source: str,
        resolution: int,
        scaling_factor: float,
        channels: int = 4,
        factor: int = 8,
        subfolder: str = "vae",
        dtype: str = "float32",
        at_once: int = 4,
        variant: str | None = None,
        tile: int | None = None,
    ) -> None:
        if resolution % factor:
            raise ValueError(
                f"resolution must be a multiple of the VAE's {factor}, got {resolution}"
            )
        if tile is not None and (tile < 4 * factor or tile % factor):
            raise ValueError(
                f"tiles of the VAE are multiples of {factor} pixels, {4 * factor} at least, got "
                f"{tile}; type memory.decoded_tile=512, or null"
            )
        self.channels, self.factor = channels, factor
        self.source, self.subfolder, self.variant = source, subfolder, variant
        self.dtype, self.at_once, self.tile = dtype_of(dtype), at_once, tile
        # The shift stands in the VAE's config, which is read with its weights.
        self.resolution, self.scaling_factor, self.shift = resolution, scaling_factor, 0.0
        # The shape of one sample's latents. The data and the networks need it before any file is
        # read, so it comes from the arguments, and `_check` compares.
        self.shape = self.shape_at((resolution, resolution))
        self._network: nn.Module | None = None

    def shape_at(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape [C, h, w] of the latents of an image of height and width `size` in pixels.

        Raises ValueError where they are no multiples of `factor`.
        """
        if any(pixels % self.factor for pixels in size):
            got = " x ".join(map(str, size))
            raise ValueError(
                f"height and width must be multiples of the VAE's {self.factor}, got {got}"
            )
        return (self.channels, *(pixels // self.factor for pixels in size))

    @classmethod
    def said(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a VAE's `config.json` says of this class's arguments: scale, channels, factor."""
        return {
            "scaling_factor": config.get("scaling_factor", 0.18215),
            "channels": config.get("latent_channels", 4),
            # Every level of the encoder but the last halves the image.
            "factor": 2 ** (len(config.get("block_out_channels", (64,))) - 1),
        }

    def require(self) -> None:
        """Raise FileNotFoundError where there is no such VAE, ValueError where it is of another
        class; reads no weights.
        """
        config = self._file()
        if (kind := config.get("_class_name")) != self.kind:
            raise ValueError(f"the VAE of {self.source} is a {kind}, and not a {self.kind}")
        check_keys(f"the VAE of {self.source}", config, self.read)

    def _file(self) -> dict[str, Any]:
        # What the file says itself: diffusers fills in defaults of a newer time.
        return config_in(self.source, str(Path(self.subfolder) / "config.json"))

    @property
    def network(self) -> Any:
        """The network of diffusers, read at the first access.

        Raises FileNotFoundError where there is none, ValueError where its scale or shape is not
        this configuration's.
        """
        if self._network is None:
            import diffusers  # noqa: PLC0415

            self.require()
            loader = getattr(diffusers, self.kind)
            variant = variant_of(
                self.source, str(Path(self.subfolder) / "diffusion_pytorch_model"), self.variant
            )
            with named_in_errors(self.source, self.subfolder or "VAE"):
                network = read_whole(
                    loader,
                    self.source,
                    subfolder=self.subfolder or None,
                    torch_dtype=self.dtype,
                    variant=variant,
                    use_safetensors=True,
                )
            check_known(f"the VAE of {self.source}", self._file(), network)
            self._check(network.config)
            self._network = network.requires_grad_(False).eval()
        return self._network

    @network.setter
    def network(self, network: nn.Module) -> None:
        """Take this one, and read no file."""
        self._network = network

    def _check(self, config: Any) -> None:
        for key in self.unsupported:
            if config.get(key) is not None:
                raise ValueError(
                    f"the VAE of {self.source} has {key}, latents of a scale for each channel, "
                    f"which is not supported for {self.kind}"
                )
        if self._file().get("force_upcast") and self.dtype == torch.float16:
            raise ValueError(
                f"the VAE of {self.source} overflows in float16, as its force_upcast says; type "
                "teacher.autoencoder.dtype=float32"
            )
        for key in ("in_channels", "out_channels"):
            if (num := config.get(key, 3)) != 3:
                raise ValueError(
                    f"the VAE of {self.source} has {key}={num}, and images here have 3 channels"
                )
        said = self.said(config)
        size = self.resolution // said["factor"]
        theirs = {
            "scaling_factor": said.get("scaling_factor", 1.0),
            "latents' shape": (said["channels"], size, size),
        }
        ours = {"scaling_factor": self.scaling_factor, "latents' shape": self.shape}
        for name, value in theirs.items():
            if value != ours[name]:
                raise ValueError(
                    f"the VAE of {self.source} has {name} {value}, and this configuration "
                    f"{ours[name]}"
                )
        self.shift = config.get("shift_factor") or 0.0

    def identity(self) -> dict[str, Any]:
        """What latents must share to be the same: a hash of the weights, scale and shape.

        A folder of latents records it, and data of another VAE's latents is refused by it.
        """
        # Of the weights, not of `source`: a pipeline may lie in a folder, on the hub, or be moved.
        digest = hashlib.sha256()
        for name, tensor in [*sorted(self.network.state_dict().items()), *self._statistics()]:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            # As bytes, since numpy has no bfloat16.
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return {
            "vae": digest.hexdigest()[:16],
            "scaling_factor": self.scaling_factor,
            "shift": self.shift,
            "resolution": self.resolution,
            "shape": list(self.shape),
        }

    def _statistics(self) -> list[tuple[str, Tensor]]:
        """What scales the latents beside weights and numbers, by name, for the hash."""
        return []

    @torch.no_grad()
    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Latents float32 [B, C, h, w] of images [B, 3, H, W] in [-1, 1].

        They are a draw from the posterior, mean + std noise, with N(0, I) `noise` [B, C, h, w].
        """
        # The network's device, before its statistics are read.
        self.network.to(images.device)
        # Not under the caller's autocast: SDXL's VAE overflows in float16. `dtype` decides alone.
        with torch.autocast(images.device.type, enabled=False):
            posteriors = [
                self._posterior(part.to(self.dtype)) for part in images.split(self.at_once)
            ]
        mean, std = (torch.cat(parts).float() for parts in zip(*posteriors, strict=True))
        return self._scaled(mean + std * noise)

    def decode(self, latents: Tensor) -> Tensor:
        """Images float32 [B, 3, H, W] of latents [B, C, h, w]; gradients reach the latents."""
        self.network.to(latents.device)
        z = self._unscaled(latents.float()).to(self.dtype)
        with torch.autocast(latents.device.type, enabled=False):
            return torch.cat([self._images(part) for part in z.split(self.at_once)]).float()

    def offload(self) -> None:
        """Send the network back to the host, if it was read; the next call moves it again."""
        if self._network is not None:
            self._network.cpu()

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z, [B, C, h, w], of images [B, 3, H, W]."""
        posterior = self.network.encode(images).latent_dist
        return posterior.mean, posterior.std

    def _images(self, z: Tensor) -> Tensor:
        if self.tile is None:
            return self._decoded(z)
        return decoded_in_tiles(self._decoded, z, self.tile // self.factor, self.factor)

    def _decoded(self, z: Tensor) -> Tensor:
        """Images [B, 3, H, W] of z [B, C, h, w], in one pass."""
        return self.network.decode(z).sample

    def _scaled(self, z: Tensor) -> Tensor:
        return (z - self.shift) * self.scaling_factor

    def _unscaled(self, latents: Tensor) -> Tensor:
        return latents / self.scaling_factor + self.shift


class TinyVAE(VAE):
    """An `AutoencoderTiny` (TAESD): decodes a VAE's latents, with their scale, with far less work.

    Arguments are those of `VAE`. It has no posterior, so it encodes nothing.
    """

    kind = "AutoencoderTiny"

    def __init__(
        self,
        source: str,
        resolution: int,
        channels: int = 4,
        factor: int = 8,
        subfolder: str = "",
        dtype: str = "float32",
        at_once: int = 16,
    ) -> None:
        # Factor 1: it was trained on scaled latents.
        super().__init__(source, resolution, 1.0, channels, factor, subfolder, dtype, at_once)

    def _check(self, config: Any) -> None:
        # A scaling factor in its config is not compared: the scale is 1 here, by construction.
        if config["latent_channels"] != self.shape[0]:
            raise ValueError(
                f"{self.source} reads {config['latent_channels']} channels, the latents are "
                f"{self.shape}"
            )

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Raise ValueError: there is no posterior to draw from."""
        raise ValueError(
            f"{self.source} has no posterior to draw from; encode with the VAE that it imitates"
        )
