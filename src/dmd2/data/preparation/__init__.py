"""Preparation of data: archives in, one folder of arrays out, in blocks that processes share.

Exported is what a recipe in YAML names.
"""

# The function `prepare` is not among them: it would hide the module of its name.
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.recipes import images, latents

__all__ = ["Decoder", "images", "latents"]
