"""Images of another height and width than the base size, which is that of
`teacher.autoencoder.resolution`.
"""

from collections.abc import Sequence

from dmd2.data.base import DataModule
from dmd2.data.prompts import Captioned
from dmd2.data.sizes import size_of
from dmd2.diffusion.denoiser import Denoiser


def shape_at(denoiser: Denoiser, data: DataModule, size: Sequence[int]) -> tuple[int, ...]:
    """The shape of a sample of height and width `size` in pixels.

    Raises ValueError where autoencoder or network take none of this size.
    """
    size = size_of(size)
    try:
        if not isinstance(data, Captioned):
            raise ValueError("only students of latents make another size than the data's")
        shape = data.codec.shape_at(size)
        denoiser.check_size(*shape[-2:])
    except ValueError as error:
        raise ValueError(f"no images of {size[0]} x {size[1]} pixels: {error}") from error
    return shape
