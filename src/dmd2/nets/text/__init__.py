"""Text to conditions: encoders of captions, and conditioners whose labels number captions."""

from dmd2.nets.text.clip import CLIP, CLIPPair, clip_pair
from dmd2.nets.text.encoder import TextEncoder
from dmd2.nets.text.families import ENCODERS
from dmd2.nets.text.prompts import CachedPrompts, Prompts
from dmd2.nets.text.tiny import tiny_clip

# The functions `clip` and `prompts` are left to their modules, whose names they have.
__all__ = [
    "CLIP",
    "ENCODERS",
    "CLIPPair",
    "CachedPrompts",
    "Prompts",
    "TextEncoder",
    "clip_pair",
    "tiny_clip",
]
