"""The one interface around every teacher, critic and generator: x0_hat = denoiser(x_t, t, cond), t
in [0, 1].

A family wraps its network in a subclass; the algorithm sees clean data only. A pass may be cut in
two, `encode` and `decode`, so that the GAN head pays for the encoder alone and only some rows are
decoded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dmd2.diffusion.conditioning import Cond, join
from dmd2.diffusion.schedules import Karras, NoiseSchedule, expand

Prediction = Literal["x0", "eps", "v", "flow"]


def to_x0(
    prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """Clean data [B, ...] of a network's output in any dialect, at alpha and sigma [B].

    From x_t = alpha x0 + sigma noise: eps is the noise; v = alpha noise - sigma x0 (Salimans & Ho
    2022, with
    alpha^2 + sigma^2 = 1); flow = noise - x0 (with alpha + sigma = 1).
    """
    alpha, sigma = expand(alpha, x_t), expand(sigma, x_t)
    if prediction == "eps":
        return (x_t - sigma * output) / alpha
    if prediction == "v":
        return alpha * x_t - sigma * output
    if prediction == "flow":
        return x_t - sigma * output
    return output


@dataclass
class Encoding:
    """A pass that stopped after the encoder: features, for the head, and what the decoder needs to
    go on.

    Features are of all rows; the rest is of those that are to be decoded.
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
    return x if num is None else x[len(x) - num :]


class Denoiser(nn.Module):
    """Base of all families: x_t [B, ...], t [B] and a condition give x0_hat [B, ...] in float32.

    `taps` names submodules of `model` (dotted) whose outputs the head reads; they are caught by
    forward hooks.
    """

    prediction: Prediction
    model: Any
    """The network; the families here want one of two halves, `encode` and `decode`."""

    def __init__(self, model: nn.Module, schedule: NoiseSchedule, taps: Sequence[str] = ()) -> None:
        super().__init__()
        self.model, self.schedule, self.taps = model, schedule, tuple(taps)
        for tap in self.taps:
            self.layer(tap)

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        """The pass up to where the last feature is known; `decode` then gives the last
        `num_decoded` rows, or all.
        """
        raise NotImplementedError

    def decode(self, encoding: Encoding) -> Tensor:
        """The rest of the pass: x0_hat, float32, of the rows to be decoded."""
        alpha, sigma = self.schedule.alpha_sigma(encoding.t)
        return to_x0(self.prediction, self.finish(encoding).float(), encoding.x_t, alpha, sigma)

    def finish(self, encoding: Encoding) -> Tensor:
        """The rest of the pass in the network's own dialect."""
        raise NotImplementedError

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.decode(self.encode(x_t, t, cond))

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The network's output in its own dialect, named by `prediction`."""
        return self.finish(self.encode(x_t, t, cond))

    def features(self, x_t: Tensor, t: Tensor, cond: Cond) -> list[Tensor]:
        """The tapped activations, one tensor a tap."""
        return self.encode(x_t, t, cond).features

    def layer(self, name: str) -> nn.Module:
        """A submodule of the network; raises ValueError where there is none of this name."""
        modules = dict(self.model.named_modules())
        if name not in modules:
            likely = [other for other in modules if other.count(".") == name.count(".")]
            raise ValueError(f"no layer is named {name!r}; this network has {', '.join(likely)}")
        return modules[name]

    @contextmanager
    def catch(self) -> Iterator[list[Tensor]]:
        """Catch the outputs of the taps during one pass, in the order of `taps`."""
        caught: dict[str, Tensor] = {}
        features: list[Tensor] = []
        hooks: list[RemovableHandle] = []
        for tap in self.taps:
            keep = lambda _module, _args, output, tap=tap: caught.__setitem__(tap, output)  # noqa: E731
            hooks.append(self.model.get_submodule(tap).register_forward_hook(keep))
        try:
            yield features
            if beyond := [tap for tap in self.taps if tap not in caught]:
                raise ValueError(
                    f"the encoder ends before the layer {beyond[0]!r}; tap one of its own"
                )
            features.extend(caught[tap] for tap in self.taps)
        finally:
            for hook in hooks:
                hook.remove()


class EDM(Denoiser):
    """EDM's preconditioning around a network F of two halves, `encode` and `decode` (Karras et al.
    2022, Eq. 7).
    """

    prediction: Prediction = "x0"

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        sigma_data: float = 0.5,
        taps: Sequence[str] = (),
    ) -> None:
        super().__init__(model, schedule, taps)
        if not isinstance(schedule, Karras):
            raise ValueError(
                "EDM's preconditioning needs alpha = 1, so the Karras schedule; got "
                f"{type(schedule).__name__}"
            )
        self.sigma_data = sigma_data

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        _, sigma = self.schedule.alpha_sigma(t)
        c_in = (sigma**2 + self.sigma_data**2).rsqrt()
        with self.catch() as features:
            state = self.model.encode(expand(c_in, x_t) * x_t, sigma.log() / 4, cond.get("label"))
        return Encoding(x_t, t, state, features).last(num_decoded)

    def finish(self, encoding: Encoding) -> Tensor:
        _, sigma = self.schedule.alpha_sigma(encoding.t)
        variance = sigma**2 + self.sigma_data**2
        c_skip, c_out = self.sigma_data**2 / variance, sigma * self.sigma_data * variance.rsqrt()
        raw = self.model.decode(encoding.state).float()
        return expand(c_skip, raw) * encoding.x_t + expand(c_out, raw) * raw


class UnscaledDenoiser(Denoiser):
    """A network of two halves that reads x_t and 1000 t as they are and speaks eps, v, flow or x0
    (VP and flow).

    For networks trained here: published ones want their own time labels (Stable Diffusion the
    table's row).
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        prediction: Prediction,
        taps: Sequence[str] = (),
    ) -> None:
        super().__init__(model, schedule, taps)
        if prediction not in ("x0", "eps", "v", "flow"):
            raise ValueError(f"prediction must be x0, eps, v or flow, got {prediction!r}")
        self.prediction = prediction

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        with self.catch() as features:
            state = self.model.encode(x_t, 1000 * t, cond.get("label"))
        return Encoding(x_t, t, state, features).last(num_decoded)

    def finish(self, encoding: Encoding) -> Tensor:
        return self.model.decode(encoding.state)


def guided(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Cond, null: Cond, guidance: float
) -> Tensor:
    """Classifier-free guidance null + w (cond - null) on x0, both halves in one batch; w = 1 is one
    plain pass.
    """
    if guidance == 1.0:
        return denoiser(x_t, t, cond)
    both = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), join(cond, null))
    conditional, unconditional = both.chunk(2)
    return unconditional + guidance * (conditional - unconditional)
