"""Counts a denoiser's passes: for the tests of what a turn and an iteration cost."""

from dmd2.diffusion.denoiser import Denoiser


class Passes:
    """Counts a denoiser's passes by forward hooks: batch size and whether a graph was recorded."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.encoder: list[tuple[int, bool]] = []
        self.decoder: list[tuple[int, bool]] = []
        for seen, layer in (
            (self.encoder, denoiser.model.enc[1]),
            (self.decoder, denoiser.model.outer),
        ):

            def note(_m, _a, output, seen=seen):
                seen.append((len(output), output.requires_grad))

            layer.register_forward_hook(note)
