"""The family of U-Nets: what a published pipeline says of its network, its sizes and its text."""

from dataclasses import dataclass
from pathlib import Path

from dmd2.io.hub import COUNT, check_keys, config_in
from dmd2.nets.autoencoder_kinds import kind_of
from dmd2.nets.family import Config, Family
from dmd2.nets.text.clip import clip, clip_pair
from dmd2.nets.text.encoder import TextEncoder
from dmd2.nets.unet import UNet, UNetXL

UNSUPPORTED = {
    "class_embed_type": "labels or embeddings of another network",
    "num_class_embeds": "class labels beside the text",
    "time_cond_proj_dim": "a guidance scale: it is distilled already",
    "encoder_hid_dim": "text through a projection of its own",
    "encoder_hid_dim_type": "text through a projection of its own",
}
"""Arguments that give a U-Net an input which no denoiser here fills, and what it would read."""


@dataclass(frozen=True, kw_only=True)
class UNetFamily(Family):
    """diffusers' `UNet2DConditionModel`: of Stable Diffusion 1 and 2, and of SDXL."""

    folder = UNet.folder
    prefix = "model.diffusion_model."

    def check(self, source: str | Path, config: Config) -> None:
        """Raise ValueError where a network reads what no denoiser here gives it."""
        for key, what in UNSUPPORTED.items():
            if config.get(key) is not None:
                raise ValueError(f"the U-Net of {source} reads {what} ({key}={config[key]})")
        check_keys(
            f"the U-Net of {source}", config, dict.fromkeys(("in_channels", "out_channels"), COUNT)
        )
        read, made = config.get("in_channels", 4), config.get("out_channels", 4)
        if read != made:
            raise ValueError(
                f"the U-Net of {source} reads {read} channels and makes {made}: it is "
                + (
                    "one for inpainting or editing, and reads an image beside the noise"
                    if read > made
                    else "one that makes something beside its prediction, e.g. a variance"
                )
            )
        if config.get("addition_embed_type") not in (None, "text_time"):
            raise ValueError(
                f"the U-Net of {source} has addition_embed_type={config['addition_embed_type']}, "
                "and only text_time (SDXL's) is supported"
            )
        if config.get("attention_type", "default") != "default":
            raise ValueError(
                f"the U-Net of {source} has attention_type={config['attention_type']}: it reads "
                "boxes beside the text"
            )

    def denoiser_for(self, config: Config) -> type[UNet]:
        """The class of the denoiser for a network."""
        return UNetXL if reads_sizes(config) else UNet

    def resolution_of(self, source: str | Path, config: Config) -> int:
        """Height and width of images in pixels; raises ValueError where the file does not say."""
        _, said = kind_of(source)
        size = config.get("sample_size")
        if not isinstance(size, int):
            raise ValueError(
                f"the U-Net of {source} has sample_size={size}; name height and width of the "
                "images: teacher.autoencoder.resolution=512"
            )
        factor: int = said["factor"]
        return size * factor

    def encoder(
        self,
        source: str,
        config: Config,
        resolution: int | None,
        variant: str | None,
        dtype: str,
        length: int | None,
    ) -> TextEncoder:
        """SDXL's two encoders where the network reads them, else the one."""
        check_text(source, config)
        if not reads_sizes(config):
            return clip(source, variant, dtype)
        size = resolution or self.resolution_of(source, config)
        return clip_pair(source, size, variant, dtype)


def reads_sizes(config: Config) -> bool:
    """Whether a U-Net of this config is SDXL's: it also reads pooled text, sizes and crops."""
    return config.get("addition_embed_type") is not None


def check_text(source: str | Path, config: Config) -> None:
    """Raise ValueError where a pipeline's encoders do not make what its U-Net, of this config,
    reads.
    """
    is_xl = reads_sizes(config)
    names = ("text_encoder", "text_encoder_2") if is_xl else ("text_encoder",)
    encoders = [config_in(source, f"{name}/config.json") for name in names]
    made, read = sum(_size(e, "hidden_size") for e in encoders), config.get("cross_attention_dim")
    if made != read:
        raise ValueError(
            f"the U-Net of {source} reads text of width {read}, and its encoders make {made}"
        )
    if is_xl:
        # Beside the pooled text it embeds six numbers: sizes, crops (Podell et al. 2023).
        pooled, width = (
            _size(encoders[-1], "projection_dim"),
            _size(config, "addition_time_embed_dim"),
        )
        if _size(config, "projection_class_embeddings_input_dim") != pooled + 6 * width:
            raise ValueError(
                f"the U-Net of {source} does not read pooled text of {pooled} numbers and six of "
                "sizes and crops, as SDXL base does; SDXL's refiner reads others"
            )


def _size(config: Config, key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) else 0
