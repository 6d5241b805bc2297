"""Pixels to latents and back: a pipeline's VAE, which is read when somebody first asks for its
work.

latents = (z - shift) scaling_factor, with z as the VAE makes and reads it; images are [B, 3, H, W]
in [-1, 1].
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmd2.io.hub import dtype_of, file_of, variant_of


class VAE:
    """An `AutoencoderKL` of diffusers, frozen and in float32 unless `dtype` says otherwise.

    source          Folder or name on the hub of a pipeline, or of a VAE alone (`subfolder: ""`).
    resolution      Height and width of its images, here.
    scaling_factor  What the teacher's latents are multiplied by; checked where the VAE says so
                    itself.
    channels        Of its latents.
    factor          Pixels a latent pixel, along one side.
    at_once         Images that go through it together.
    variant         Of its file, e.g. fp16; the plain one where there is none such.
    """

    kind = "AutoencoderKL"

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
    ) -> None:
        if resolution % factor:
            raise ValueError(
                f"resolution must be a multiple of the VAE's {factor}, got {resolution}"
            )
        self.source, self.subfolder, self.dtype, self.at_once = (
            source,
            subfolder,
            dtype_of(dtype),
            at_once,
        )
        self.variant = variant
        self.resolution, self.scaling_factor, self.shift = resolution, scaling_factor, 0.0
        self.shape = (channels, resolution // factor, resolution // factor)
        self._network: nn.Module | None = None

    def require(self) -> None:
        """Raise FileNotFoundError where there is no such VAE; a cheap look, before anything
        slow.
        """
        file_of(self.source, str(Path(self.subfolder) / "config.json"))

    @property
    def network(self) -> Any:
        """The network, read when first asked for.

        Raises FileNotFoundError where there is none, ValueError where it is another than this
        configuration's.
        """
        if self._network is None:
            import diffusers  # noqa: PLC0415

            self.require()
            loader = getattr(diffusers, self.kind)
            variant = variant_of(
                self.source, str(Path(self.subfolder) / "diffusion_pytorch_model"), self.variant
            )
            network = loader.from_pretrained(
                self.source,
                subfolder=self.subfolder or None,
                torch_dtype=self.dtype,
                variant=variant,
                use_safetensors=True,
            )
            self._check(network.config)
            self._network = network.requires_grad_(False).eval()
        return self._network

    def _check(self, config: Any) -> None:
        channels, factor = config["latent_channels"], 2 ** (len(config["block_out_channels"]) - 1)
        size = self.resolution // factor
        said = {
            "scaling_factor": config["scaling_factor"],
            "latents' shape": (channels, size, size),
        }
        ours = {"scaling_factor": self.scaling_factor, "latents' shape": self.shape}
        for name, value in said.items():
            if value != ours[name]:
                raise ValueError(
                    f"the VAE of {self.source} has {name} {value}, and this configuration "
                    f"{ours[name]}"
                )
        self.shift = config.get("shift_factor") or 0.0

    def identity(self) -> dict[str, Any]:
        """What latents must share to be the same: weights, as a hash, and how they are scaled."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return {
            "vae": digest.hexdigest()[:16],
            "scaling_factor": self.scaling_factor,
            "shift": self.shift,
            "resolution": self.resolution,
            "shape": list(self.shape),
        }

    @torch.no_grad()
    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Latents float32 [B, ...] of images: a draw from the posterior by N(0, I) `noise` [B,
        ...].
        """
        network = self.network.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            posteriors = [
                network.encode(part.to(self.dtype)).latent_dist
                for part in images.split(self.at_once)
            ]
        mean, std = (
            torch.cat([getattr(p, name) for p in posteriors]).float() for name in ("mean", "std")
        )
        return (mean + std * noise - self.shift) * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images float32 [B, 3, H, W] of latents; gradients flow through, where somebody asks for
        them.
        """
        network = self.network.to(latents.device)
        z = (latents.float() / self.scaling_factor + self.shift).to(self.dtype)
        with torch.autocast(latents.device.type, enabled=False):
            return torch.cat(
                [network.decode(part).sample for part in z.split(self.at_once)]
            ).float()


class TinyVAE(VAE):
    """An `AutoencoderTiny` (TAESD), which decodes a VAE's latents, scaled as they are, with far
    less work.
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
        super().__init__(
            source, resolution, 1.0, channels, factor, subfolder, dtype, at_once
        )  # it knows the scale

    def _check(self, config: Any) -> None:
        if config["latent_channels"] != self.shape[0]:
            raise ValueError(
                f"{self.source} reads {config['latent_channels']} channels, the latents are "
                f"{self.shape}"
            )

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        raise ValueError(
            f"{self.source} has no posterior to draw from; encode with the VAE that it imitates"
        )
