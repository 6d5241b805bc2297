"""Input and output scaling around a network: EDM's preconditioning (Karras et al. 2022), or none.

Both wrap a network of two halves: `encode(x, noise_label, class_label)` gives a list of tensors,
`decode` takes it and gives the output.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding, Prediction
from dmd2.diffusion.schedules import Karras, NoiseSchedule, expand


class EDM(Denoiser):
    """EDM's preconditioning around a network F (Karras et al. 2022, Eq. 7), where alpha = 1.

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma)).

    sigma_data  Standard deviation of the data: 0.5 for images in [-1, 1].
    taps        Names of the network's layers whose outputs are the discriminator's features.

    Raises ValueError for any schedule but `Karras`.

    >>> import torch
    >>> from dmd2.nets.toy import MLP
    >>> denoiser = EDM(MLP(dim=2), Karras())
    >>> denoiser(80 * torch.randn(4, 2), torch.ones(4), {}).shape
    torch.Size([4, 2])
    """

    # finish() puts c_skip x and c_out F together already, so what it gives is x0.
    prediction: Prediction = "x0"

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        sigma_data: float = 0.5,
        taps: Sequence[str] = (),
    ) -> None:
        super().__init__(model, schedule, taps)
        # Eq. 7 is derived for x = x0 + sigma noise; other families have their own scaling.
        if not isinstance(schedule, Karras):
            raise ValueError(
                "EDM's preconditioning needs alpha = 1, so the Karras schedule; got "
                f"{type(schedule).__name__}"
            )
        self.sigma_data = sigma_data

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        """The encoder on c_in x_t [B, ...] and c_noise [B]."""
        _, sigma = self.schedule.alpha_sigma(t)
        # EDM Table 1: c_in = 1 / sqrt(sigma^2 + sigma_data^2), c_noise = ln(sigma) / 4.
        c_in = (sigma**2 + self.sigma_data**2).rsqrt()
        with self.catch() as features:
            state = self.model.encode(expand(c_in, x_t) * x_t, sigma.log() / 4, cond.get("label"))
        return Encoding(x_t, t, state, features).last(num_decoded)

    def finish(self, encoding: Encoding) -> Tensor:
        """D(x; sigma), which is x0_hat [B, ...], float32."""
        _, sigma = self.schedule.alpha_sigma(encoding.t)
        # EDM Table 1: c_skip = sigma_data^2 / (sigma^2 + sigma_data^2),
        # c_out = sigma sigma_data / sqrt(sigma^2 + sigma_data^2).
        variance = sigma**2 + self.sigma_data**2
        c_skip, c_out = self.sigma_data**2 / variance, sigma * self.sigma_data * variance.rsqrt()
        # Combined in float32: at small sigma x0_hat is nearly x_t, whose digits bfloat16 loses.
        raw: Tensor = self.model.decode(encoding.state).float()
        # EDM Eq. 7.
        return expand(c_skip, raw) * encoding.x_t + expand(c_out, raw) * raw


class UnscaledDenoiser(Denoiser):
    """A network that reads x_t and 1000 t as they are and outputs x0, eps, v or flow.

    For networks trained here, on any schedule. Published ones want time labels of their own (Stable
    Diffusion the row of its table): see `dmd2.nets.unet`.

    Raises ValueError for any other `prediction`.

    >>> import torch
    >>> from dmd2.diffusion import Flow
    >>> from dmd2.nets.toy import MLP
    >>> denoiser = UnscaledDenoiser(MLP(dim=2), Flow(), prediction="flow")
    >>> denoiser(torch.randn(4, 2), torch.ones(4), {}).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        prediction: Prediction,
        taps: Sequence[str] = (),
    ) -> None:
        super().__init__(model, schedule, taps)
        # The type is not checked when a YAML builds this.
        if prediction not in ("x0", "eps", "v", "flow"):
            raise ValueError(f"prediction must be x0, eps, v or flow, got {prediction!r}")
        self.prediction = prediction

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        """The encoder on x_t [B, ...] and the time label 1000 t [B]."""
        with self.catch() as features:
            # 1000 t is DDPM's range of time labels, for which time embeddings are made.
            state = self.model.encode(x_t, 1000 * t, cond.get("label"))
        return Encoding(x_t, t, state, features).last(num_decoded)

    def finish(self, encoding: Encoding) -> Tensor:
        """The network's output [B, ...], the quantity that `prediction` names."""
        # Not converted: `Denoiser.decode` makes x0 of it, whatever the prediction is.
        output: Tensor = self.model.decode(encoding.state)
        return output
