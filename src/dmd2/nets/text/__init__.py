"""Text to conditions: CLIP encoders, and conditioners whose labels are numbers of captions."""

from dmd2.nets.text.clip import CLIP, CLIPPair, clip_pair
from dmd2.nets.text.prompts import CachedPrompts, Prompts
from dmd2.nets.text.tiny import tiny_clip

# The functions `clip` and `prompts` are left to their modules, whose names they have.
__all__ = ["CLIP", "CLIPPair", "CachedPrompts", "Prompts", "clip_pair", "tiny_clip"]
