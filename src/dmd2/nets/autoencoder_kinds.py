"""The autoencoders of SANA, Qwen-Image and FLUX.2, each a `VAE`, and the one that a file names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from dmd2.io.hub import (
    COUNT,
    NUMBER,
    POSITIVE,
    SWITCH,
    Kind,
    check_keys,
    config_in,
    list_of,
)
from dmd2.nets.autoencoder import VAE


class DCAutoencoder(VAE):
    """An `AutoencoderDC` (DC-AE, Chen et al. 2024, arXiv:2410.10733): SANA's, of factor 32.

    It is deterministic: what it encodes depends on no noise.
    """

    kind = "AutoencoderDC"
    read: ClassVar[dict[str, Kind]] = {
        "scaling_factor": POSITIVE,
        "latent_channels": COUNT,
        "encoder_block_out_channels": list_of(COUNT),
    }

    @classmethod
    def said(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Scale, channels and factor of a `config.json`."""
        return {
            "scaling_factor": config.get("scaling_factor", 1.0),
            "channels": config.get("latent_channels", 32),
            # Every level of the encoder but the last halves the image.
            "factor": 2 ** (len(config.get("encoder_block_out_channels", range(6))) - 1),
        }

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.network.encode(images).latent
        return mean, torch.zeros_like(mean)


class ChannelVAE(VAE):
    """Base of VAEs whose latents are (z - mean) / std, with a mean and a std for each channel.

    Arguments are those of `VAE`, without its one scale.
    """

    def __init__(
        self,
        source: str,
        resolution: int,
        channels: int = 16,
        factor: int = 8,
        subfolder: str = "vae",
        dtype: str = "float32",
        at_once: int = 4,
        variant: str | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(
            source, resolution, 1.0, channels, factor, subfolder, dtype, at_once, variant, tile
        )

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Mean and std of z, float32 [C], on the device of the network."""
        raise NotImplementedError

    def _statistics(self) -> list[tuple[str, Tensor]]:
        return list(zip(("latents_mean", "latents_std"), self.mean_std(), strict=True))

    def _scaled(self, z: Tensor) -> Tensor:
        mean, std = (each[:, None, None] for each in self.mean_std())
        return (z - mean) / std

    def _unscaled(self, latents: Tensor) -> Tensor:
        mean, std = (each[:, None, None] for each in self.mean_std())
        return latents * std + mean


class QwenVAE(ChannelVAE):
    """An `AutoencoderKLQwenImage`: a video's network, given one frame [B, 3, 1, H, W].

    Mean and std of the latents' channels stand in its file. Decoded images are clamped to [-1, 1],
    so no gradient comes from a pixel beyond.
    """

    kind = "AutoencoderKLQwenImage"
    unsupported = ()
    read: ClassVar[dict[str, Kind]] = {
        "z_dim": COUNT,
        "temperal_downsample": list_of(SWITCH),
        "latents_mean": list_of(NUMBER),
        "latents_std": list_of(POSITIVE),
    }

    @classmethod
    def said(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Channels and factor of a `config.json`."""
        return {
            "channels": config.get("z_dim", 16),
            # A flag for each level that halves the image: whether it also halves time.
            "factor": 2 ** len(config.get("temperal_downsample", range(3))),
        }

    def _check(self, config: Any) -> None:
        super()._check(config)
        for key in ("latents_mean", "latents_std"):
            if len(config[key]) != self.shape[0]:
                raise ValueError(
                    f"the VAE of {self.source} has {len(config[key])} values of {key}, and "
                    f"{self.shape[0]} channels"
                )

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Mean and std of z, float32 [C], as its file says."""
        config, device = self.network.config, self.network.device
        return (
            torch.tensor(config["latents_mean"], device=device),
            torch.tensor(config["latents_std"], device=device),
        )

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.network.encode(images[:, :, None]).latent_dist
        return posterior.mean[:, :, 0], posterior.std[:, :, 0]

    def _decoded(self, z: Tensor) -> Tensor:
        return self.network.decode(z[:, :, None]).sample[:, :, 0]


class Flux2VAE(ChannelVAE):
    """An `AutoencoderKLFlux2`: 2x2 pixels of z's 32 channels are a latent pixel of 128 channels.

    Channels are in the order (c, row, column). Mean and std are statistics of a batch norm, which
    lie with the weights.
    """

    kind = "AutoencoderKLFlux2"
    read: ClassVar[dict[str, Kind]] = {
        "latent_channels": COUNT,
        "block_out_channels": list_of(COUNT),
        "patch_size": list_of(COUNT),
        "batch_norm_eps": POSITIVE,
    }

    def __init__(
        self,
        source: str,
        resolution: int,
        channels: int = 128,
        factor: int = 16,
        subfolder: str = "vae",
        dtype: str = "float32",
        at_once: int = 4,
        variant: str | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(
            source, resolution, channels, factor, subfolder, dtype, at_once, variant, tile
        )

    @classmethod
    def said(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Channels and factor of a `config.json`, after 2x2 pixels became channels."""
        return {
            "channels": 4 * config.get("latent_channels", 32),
            # Every level of the encoder but the last halves the image; the 2x2 pixels do it again.
            "factor": 2 ** len(config.get("block_out_channels", range(4))),
        }

    def _check(self, config: Any) -> None:
        super()._check(config)
        if list(config["patch_size"]) != [2, 2]:
            raise ValueError(
                f"the VAE of {self.source} has patch_size {list(config['patch_size'])}, and only "
                "[2, 2] is supported"
            )

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Mean and std of z, float32 [C], of the batch norm."""
        norm, eps = self.network.bn, self.network.config["batch_norm_eps"]
        return norm.running_mean.float(), (norm.running_var.float() + eps).sqrt()

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = super()._posterior(images)
        return functional.pixel_unshuffle(mean, 2), functional.pixel_unshuffle(std, 2)

    def _decoded(self, z: Tensor) -> Tensor:
        return super()._decoded(functional.pixel_shuffle(z, 2))


KINDS: dict[str, type[VAE]] = {each.kind: each for each in (VAE, DCAutoencoder, QwenVAE, Flux2VAE)}
"""The class for each of diffusers' classes."""


def kind_of(source: str | Path) -> tuple[type[VAE], dict[str, Any]]:
    """The class of a pipeline's VAE, and what its file says of the class's arguments.

    Raises FileNotFoundError where there is no VAE, ValueError where no class here is for it.
    """
    config = config_in(source, "vae/config.json")
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(
            f"the VAE of {source} is a {name}, and supported are {', '.join(sorted(KINDS))}"
        )
    check_keys(f"the VAE of {source}", config, KINDS[name].read)
    return KINDS[name], KINDS[name].said(config)


def vae_of(
    source: str,
    resolution: int,
    variant: str | None = None,
    dtype: str = "float32",
    at_once: int = 4,
    tile: int | None = None,
) -> VAE:
    """A pipeline's VAE, of the class, scale, channels and factor that its own file says.

    resolution  Height and width of the images.

    Other arguments are those of `VAE`. Raises FileNotFoundError where there is no VAE, ValueError
    where no class here is for it.
    """
    kind, said = kind_of(source)
    return kind(
        source, resolution, **said, variant=variant, dtype=dtype, at_once=at_once, tile=tile
    )
