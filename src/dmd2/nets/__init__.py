"""Networks: EDM's U-Nets, diffusers' U-Nets and transformers, toys, critic and discriminator,
LoRA, autoencoders.

Importing it loads none of the optional libraries: diffusers and peft are imported where used.
"""

from dmd2.nets.adm import DhariwalUNet
from dmd2.nets.autoencoder import VAE, TinyVAE
from dmd2.nets.autoencoder_kinds import DCAutoencoder, Flux2VAE, QwenVAE, vae_of
from dmd2.nets.critic import Critic, StepEmbedding, step_embedding_on
from dmd2.nets.discriminator import (
    ConvHead,
    Discriminator,
    MeanHead,
    VectorHead,
    discriminator_on,
)
from dmd2.nets.encoder_decoder import EncoderDecoderUNet
from dmd2.nets.families import (
    SD3,
    AuraFlow,
    Chroma,
    DiT,
    Flux,
    Flux2,
    PixArt,
    QwenImage,
    Sana,
    ZImage,
)
from dmd2.nets.lora import adapted, base_of, merged
from dmd2.nets.pipeline import (
    from_configs,
    pipeline_encoder,
    pipeline_guidance,
    pipeline_vae,
)
from dmd2.nets.pipeline_recipe import (
    pipeline_alpha,
    pipeline_lr,
    pipeline_rank,
    pipeline_sampler,
    pipeline_step_layer,
)
from dmd2.nets.song import SongUNet
from dmd2.nets.toy import MLP, GaussianMixture
from dmd2.nets.unet import UNet, UNetXL

# Left to their modules: the building blocks of blocks.py, and LoRA's names that say little alone.
__all__ = [
    "MLP",
    "SD3",
    "VAE",
    "AuraFlow",
    "Chroma",
    "ConvHead",
    "Critic",
    "DCAutoencoder",
    "DhariwalUNet",
    "DiT",
    "Discriminator",
    "EncoderDecoderUNet",
    "Flux",
    "Flux2",
    "Flux2VAE",
    "GaussianMixture",
    "MeanHead",
    "PixArt",
    "QwenImage",
    "QwenVAE",
    "Sana",
    "SongUNet",
    "StepEmbedding",
    "TinyVAE",
    "UNet",
    "UNetXL",
    "VectorHead",
    "ZImage",
    "adapted",
    "base_of",
    "discriminator_on",
    "from_configs",
    "merged",
    "pipeline_alpha",
    "pipeline_encoder",
    "pipeline_guidance",
    "pipeline_lr",
    "pipeline_rank",
    "pipeline_sampler",
    "pipeline_step_layer",
    "pipeline_vae",
    "step_embedding_on",
    "vae_of",
]
