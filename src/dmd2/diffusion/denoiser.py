"""The denoiser interface x0_hat = denoiser(x_t, t, cond), and classifier-free guidance.

Every teacher, critic and generator is a denoiser, whatever its network predicts (x0, eps, v or
flow). A family wraps its network in a subclass, and the algorithm sees clean data alone. A pass has
two halves, `encode` and `decode`, so that the GAN's discriminator pays for the encoder only, and
only some rows are decoded.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond, join
from dmd2.diffusion.guidance import Guidance
from dmd2.diffusion.schedules import NoiseSchedule, expand
from dmd2.diffusion.taps import caught

Prediction = Literal["x0", "eps", "v", "flow"]
"""What a network's output means."""


def to_x0(
    prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """Clean data [B, ...] of a network's output in any parameterisation, at alpha and sigma [B].

    With x_t = alpha x0 + sigma noise, eps is the noise (DDPM, Ho et al. 2020); v is alpha noise -
    sigma x0 (Salimans & Ho 2022), for alpha^2 + sigma^2 = 1; flow is noise - x0 (rectified flow,
    Liu et al. 2022), for alpha + sigma = 1.

    >>> one = torch.ones(1)
    >>> to_x0("eps", output=one, x_t=3 * one, alpha=2 * one, sigma=one)
    tensor([1.])
    """
    alpha, sigma = expand(alpha, x_t), expand(sigma, x_t)
    if prediction == "eps":
        # x_t = alpha x0 + sigma eps, solved for x0. Infinite at alpha = 0, where x_t has no data.
        return (x_t - sigma * output) / alpha
    if prediction == "v":
        # alpha x_t - sigma v = (alpha^2 + sigma^2) x0.
        return alpha * x_t - sigma * output
    if prediction == "flow":
        # x_t - sigma (noise - x0) = (alpha + sigma) x0.
        return x_t - sigma * output
    return output


@dataclass
class Encoding:
    """A pass that stopped after the encoder: the discriminator's features, and the decoder's input.

    Features are of all rows; x_t, t and state are of those that are to be decoded.
    """

    x_t: Tensor
    t: Tensor
    state: list[Tensor]
    features: list[Tensor]

    def last(self, num: int | None) -> "Encoding":
        """The same where only the last `num` rows are to be decoded; None is all."""
        x_t, t, *state = (last(x, num) for x in (self.x_t, self.t, *self.state))
        return Encoding(x_t, t, state, self.features)

    def detach(self) -> "Encoding":
        """The same without its graph."""
        state, features = ([x.detach() for x in xs] for xs in (self.state, self.features))
        return Encoding(self.x_t.detach(), self.t, state, features)


def last(x: Tensor, num: int | None) -> Tensor:
    """The last `num` rows of x [B, ...]; None is all of them."""
    # Not x[-num:], which for num = 0 is all of x.
    return x if num is None else x[len(x) - num :]


class Denoiser(nn.Module):
    """Base of all families: x_t [B, ...], t [B] and a condition give x0_hat [B, ...], float32.

    `taps` names submodules of `model` (dotted) whose outputs are the discriminator's features. They
    are read by forward hooks. Raises ValueError where there is no submodule of such a name.
    """

    prediction: Prediction
    """What `predict` gives."""
    model: Any
    """The network; the families here want one of two halves, `encode` and `decode`."""
    halves: tuple[str, ...] = ("encode", "decode")
    """Its methods that make a pass, one after the other; none where it is called as a whole."""
    lora_targets: tuple[str, ...] = ()
    """Ends of the names of the layers that get LoRA where nothing else is said."""
    embedded_guidance: float | None = None
    """The guidance scale that the network is told; None where it reads none."""
    # nn.Module says Any of what a call returns; a type checker needs to know that it is x0_hat.
    __call__: Callable[..., Tensor]

    def __init__(self, model: nn.Module, schedule: NoiseSchedule, taps: Sequence[str] = ()) -> None:
        super().__init__()
        self.model, self.schedule, self.taps = model, schedule, tuple(taps)
        # A misspelt tap must fail here, and not in the first pass after the data was loaded.
        for tap in self.taps:
            self.layer(tap, "teacher.denoiser.taps")

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError where the network takes no x_t [B, C, height, width]; here it takes no
        other size than that it was made for.
        """
        raise ValueError(f"a {type(self.model).__name__} takes one size")

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        """The pass up to where the last feature is known.

        `decode` then gives x0_hat of the last `num_decoded` rows; None is all. With 0 of them the
        pass is over where the last feature is known.
        """
        raise NotImplementedError

    def decode(self, encoding: Encoding) -> Tensor:
        """The rest of the pass: x0_hat, float32, of the rows to be decoded.

        Raises ValueError where there are none.
        """
        if not len(encoding.t):
            raise ValueError(
                "this pass ended before its decoder, since only the discriminator reads it; make "
                "two loss terms of one that needs both discriminator and x0"
            )
        alpha, sigma = self.schedule.alpha_sigma(encoding.t)
        # Under autocast the network's output is bfloat16; the conversion must not be.
        return to_x0(self.prediction, self.finish(encoding).float(), encoding.x_t, alpha, sigma)

    def finish(self, encoding: Encoding) -> Tensor:
        """The rest of the pass, as the quantity that `prediction` names."""
        raise NotImplementedError

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x0_hat [B, ...], float32, of x_t [B, ...] at t [B]."""
        return self.decode(self.encode(x_t, t, cond))

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The network's own output [B, ...], the quantity that `prediction` names."""
        return self.finish(self.encode(x_t, t, cond))

    def features(self, x_t: Tensor, t: Tensor, cond: Cond) -> list[Tensor]:
        """The tapped activations, one tensor a tap."""
        return self.encode(x_t, t, cond, num_decoded=0).features

    def layer(self, name: str, key: str) -> nn.Module:
        """A submodule of the network; raises ValueError where there is none of this name.

        key  The configuration's key that names it, for the message.
        """
        modules: dict[str, nn.Module] = dict(self.model.named_modules())
        if name not in modules:
            # Names of the same depth are a short list, and the likely ones.
            likely = [own for own in modules if own and own.count(".") == name.count(".")]
            raise ValueError(
                f"{key}: no layer is named {name!r}; this network has {', '.join(likely)}"
            )
        return modules[name]

    def catch(self) -> AbstractContextManager[list[Tensor]]:
        """A block that records the outputs of the taps during one pass."""
        return caught(self.model, self.taps)

    def blocks(self) -> list[nn.Module]:
        """The layers of layers that `compile=blocks` compiles: members of the network's lists."""
        return [block for block in listed(self.model) if any(block.children())]


def listed(network: nn.Module) -> Iterator[nn.Module]:
    """The members of a network's lists and dictionaries of layers."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from child.children()
        else:
            yield from listed(child)


def guided(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    cond: Cond,
    null: Cond,
    guidance: float | Guidance,
) -> Tensor:
    """Classifier-free guidance on x0 (Ho & Salimans 2022, arXiv:2207.12598): x0_hat [B, ...].

    mu(null) + w (mu(cond) - mu(null)) with w = `guidance`: 1 is none, 0 is unconditional. A
    `Guidance` also says at which times, and how the result is rescaled.

    >>> from dmd2.diffusion import ClassLabels, Karras, UnscaledDenoiser
    >>> from dmd2.nets.toy import MLP
    >>> denoiser = UnscaledDenoiser(MLP(dim=2, label_dim=3), Karras(), prediction="x0")
    >>> conditioner = ClassLabels(num_classes=3)
    >>> cond = conditioner(torch.tensor([0, 2]))
    >>> x_t, t = torch.randn(2, 2), torch.ones(2)
    >>> guided(denoiser, x_t, t, cond, conditioner.null(cond), guidance=1.5).shape
    torch.Size([2, 2])
    """
    if guidance == 1.0:
        return denoiser(x_t, t, cond)
    # Both halves in one batch: one pass of twice the rows is faster than two passes.
    both = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), join(cond, null))
    conditional, unconditional = both.chunk(2)
    if isinstance(guidance, Guidance):
        alpha, _ = denoiser.schedule.alpha_sigma(t)
        return guidance(conditional, unconditional, x_t, t, alpha, denoiser.prediction)
    # Where a paper writes cond + w (cond - null), its w is ours minus 1. Guiding x0 or eps is the
    # same: the conversion is affine, alike for both halves, and the weights w, 1 - w sum to one.
    return unconditional + guidance * (conditional - unconditional)
