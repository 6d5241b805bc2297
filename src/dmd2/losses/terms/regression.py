"""Terms that regress: the critic on the generator's samples (denoising), the generator on pairs."""

from collections.abc import Callable

from torch import Tensor, nn

from dmd2.losses import functional as F
from dmd2.losses.term import Logs
from dmd2.losses.turns import CriticTurn, GeneratorTurn
from dmd2.losses.weighting import Weighting


class Regression(nn.Module):
    """DMD's regression on noise-image pairs (DMD Eq. 9): distance(G(z_ref), y_ref)."""

    # It compares clean images: nothing is noised.
    view = None
    needs = frozenset({"pairs"})
    decodes: frozenset[str] = frozenset()

    def __init__(self, weight: float, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        # A module, so that a distance with weights (LPIPS) moves to the device with it.
        self.weight, self.distance = weight, distance

    def forward(self, turn: GeneratorTurn) -> tuple[Tensor, Logs]:
        """The loss [] on the turn's pairs; it logs nothing more."""
        assert turn.pair_image is not None  # `needs` asked for it
        # d(G(z_ref), y_ref) (DMD Eq. 9).
        return self.distance(turn.paired, turn.pair_image), {}


class Denoising:
    """The critic's denoising loss on the generated samples (DMD Eq. 6).

    weighting  lambda(alpha, sigma) of the squared x0 error: see `dmd2.losses.weighting`.
    """

    needs: frozenset[str] = frozenset()
    decodes = frozenset({"critic"})

    def __init__(self, weighting: Weighting, weight: float = 1.0, view: str = "critic") -> None:
        self.weight, self.view, self.weighting = weight, view, weighting

    def __call__(self, turn: CriticTurn) -> tuple[Tensor, Logs]:
        """The loss [] on the view's generated samples."""
        # Of the generated rows only: in a GAN view real rows come before them.
        alpha, sigma = turn.models.teacher.schedule.alpha_sigma(turn.fake(self.view).t)
        return F.denoising(turn.critic_x0(self.view), turn.x, self.weighting(alpha, sigma)), {}
