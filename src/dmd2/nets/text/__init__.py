"""Text to conditions: encoders of captions, and conditioners whose labels number captions."""

from dmd2.nets.text.clip import CLIP, CLIPPair, clip_pair
from dmd2.nets.text.encoder import TextEncoder
from dmd2.nets.text.families import (
    auraflow_text,
    chroma_text,
    flux_text,
    klein_text,
    pixart_text,
    qwen_image_text,
    sana_text,
    sd3_text,
    zimage_text,
)
from dmd2.nets.text.prompts import CachedPrompts, Prompts
from dmd2.nets.text.tiny import tiny_clip

# The functions `clip` and `prompts` are left to their modules, whose names they have.
__all__ = [
    "CLIP",
    "CLIPPair",
    "CachedPrompts",
    "Prompts",
    "TextEncoder",
    "auraflow_text",
    "chroma_text",
    "clip_pair",
    "flux_text",
    "klein_text",
    "pixart_text",
    "qwen_image_text",
    "sana_text",
    "sd3_text",
    "tiny_clip",
    "zimage_text",
]
