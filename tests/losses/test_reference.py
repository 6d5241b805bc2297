"""The four losses of DMD2 against one recorded evaluation of each by the reference implementation.

The record is of the plain losses, without their weights in the objective: distribution matching and
the generator's GAN loss with their gradients at the image, and the critic's two with the gradient's
norm.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from dmd2.diffusion.conditioning import ClassLabels, join
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.schedules import Karras
from dmd2.diffusion.steps import Steps
from dmd2.losses import weighting
from dmd2.losses.functional import gan_generator
from dmd2.losses.term import Term
from dmd2.losses.terms import Denoising, DistributionMatching, GANCritic, GANGenerator
from dmd2.losses.turns import CriticTurn, GeneratorTurn, Turn
from dmd2.losses.views import Models, View
from dmd2.nets.adm import DhariwalUNet
from dmd2.nets.critic import Critic
from dmd2.nets.discriminator import ConvHead, Discriminator
from dmd2.randomness import Draws

LOSS = {"rtol": 1e-5, "atol": 0}
GRADIENT = {"rtol": 1e-4, "atol": 0}
# The last GroupNorm of the discriminator's head normalises pairs of numbers here (64 channels, 32
# groups, 1x1). Its derivative is a tiny difference: float32 leaves two digits of the gradient, how
# much more depends on the CPU. The test in double has four.
THROUGH_THE_DISCRIMINATOR = 1e-2
GAN_VIEWS = frozenset({"view"})


@pytest.fixture(scope="module")
def record(reference: Path) -> dict[str, Tensor]:
    found = np.load(reference / "dmd2/losses.npz")
    return {key: torch.as_tensor(found[key]) for key in found}


@pytest.fixture
def models(reference: Path) -> Models:
    teacher, fake = (
        denoiser(reference / f"dmd2/{name}.safetensors") for name in ("teacher", "critic")
    )
    discriminator = Discriminator([ConvHead(torch.Size([1, 64, 8, 8]))])
    discriminator.heads[0].layers.load_state_dict(load_file(reference / "dmd2/head.safetensors"))
    return Models(teacher.requires_grad_(False), Critic(fake, discriminator), ClassLabels(10))


def denoiser(path: Path) -> EDM:
    """A recorded network, its arguments in the file's metadata."""
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    assert config.pop("model_type") == "DhariwalUNet"
    channels = config.pop("img_channels")
    model = DhariwalUNet(in_channels=channels, out_channels=channels, **config)
    weights = load_file(path)
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    return EDM(model.eval(), Karras(), sigma_data=0.5, taps=["enc.8x8_block0"])


def generator_turn(
    models: Models, record: dict[str, Tensor], loss: str, gan_views: frozenset[str]
) -> GeneratorTurn:
    """A turn whose view "view" has the recorded times and noise; the image is the generator's
    output.
    """
    image = record["fake_image"].clone().requires_grad_()
    cond = models.conditioner(record["fake_label"])
    turn = GeneratorTurn(
        models=models,
        draws=Draws(0, 0),
        times={},
        gan_views=gan_views,
        decoded=frozenset({("teacher", "view"), ("critic", "view")}),
        x=image.detach(),
        cond=cond,
        steps=Steps.single(len(image)),
        generated=image,
        pair_image=None,
    )
    turn._views["view"] = noised(turn, [record[f"{loss}_t0"]], [record[f"{loss}_noise0"]])
    return turn


def critic_turn(models: Models, record: dict[str, Tensor], loss: str, num_draws: int) -> CriticTurn:
    turn = CriticTurn(
        models=models,
        draws=Draws(0, 0),
        times={},
        gan_views=GAN_VIEWS if num_draws == 2 else frozenset(),
        decoded=frozenset({("critic", "view")}),
        x=record["fake_image"].detach(),
        cond=models.conditioner(record["fake_label"]),
        steps=Steps.single(len(record["fake_label"])),
        real=record["real_image"],
        real_cond=models.conditioner(record["real_label"]),
    )
    rows, noises = (
        [record[f"{loss}_{what}{i}"] for i in range(num_draws)] for what in ("t", "noise")
    )
    turn._views["view"] = noised(turn, rows, noises)
    return turn


def noised(turn: Turn, rows: list[Tensor], noises: list[Tensor]) -> View:
    schedule = turn.models.teacher.schedule
    parts = turn.samples("view").values()
    x0, cond = torch.cat([x for x, *_ in parts]), join(*(cond for _, cond, _ in parts))
    t = schedule.time_of_row(torch.cat(rows)).float()
    steps = Steps.single(len(t))
    return View(schedule.add_noise(x0, torch.cat(noises), t), t, x0, cond, steps)


def gradient_at_the_image(turn: GeneratorTurn, term: Term) -> tuple[Tensor, Tensor]:
    logs = turn.backward({"term": term}, 1.0)
    assert turn.generated.grad is not None
    return logs["loss_term"], turn.generated.grad


def critic_loss_and_norm(turn: CriticTurn, term: Term) -> tuple[Tensor, Tensor]:
    """The loss, and the norm of the gradient over the critic and its discriminator."""
    loss = turn.backward({"term": term}, 1.0)["loss_term"]
    gradients = [p.grad for p in turn.models.critic.parameters() if p.grad is not None]
    return loss, torch.cat([g.flatten() for g in gradients]).norm()


def assert_same_gradient(
    found: Tensor, recorded: Tensor, tolerance: float = GRADIENT["rtol"]
) -> None:
    """The error relative to the gradient's own size, as single entries may be next to zero."""
    assert (found - recorded).norm() / recorded.norm() < tolerance


def test_distribution_matching(models, record):
    turn = generator_turn(models, record, "dm", frozenset())
    loss, gradient = gradient_at_the_image(turn, DistributionMatching(view="view"))
    torch.testing.assert_close(loss, record["dm_loss"].float(), **LOSS)
    assert_same_gradient(gradient, record["dm_grad"])


def test_generator_s_gan_loss(models, record):
    turn = generator_turn(models, record, "gen_gan", GAN_VIEWS)
    loss, gradient = gradient_at_the_image(turn, GANGenerator(weight=1.0, view="view"))
    torch.testing.assert_close(loss, record["gen_gan_loss"].float(), **LOSS)
    assert_same_gradient(gradient, record["gen_gan_grad"], THROUGH_THE_DISCRIMINATOR)


def test_generator_s_gan_loss_in_double(models, record):
    """The same networks and equations by hand, where rounding does not hide a difference."""
    model, head = (
        models.critic.denoiser.model.double(),
        models.critic.discriminator.heads[0].double(),
    )
    image = record["fake_image"].double().requires_grad_()
    _, sigma = models.teacher.schedule.alpha_sigma(
        models.teacher.schedule.time_of_row(record["gen_gan_t0"])
    )
    sigma = sigma.double().view(-1, 1, 1, 1)
    x_t = image + sigma * record["gen_gan_noise0"]
    label = models.conditioner(record["fake_label"])["label"].double()
    *_, features, _ = model.encode(x_t / (sigma**2 + 0.25).sqrt(), sigma.log().flatten() / 4, label)
    gan_generator(head(features)).mean().backward()
    assert_same_gradient(image.grad, record["gen_gan_grad"])


def test_critic_s_denoising_loss(models, record):
    term = Denoising(partial(weighting.edm, sigma_data=0.5), view="view")
    loss, norm = critic_loss_and_norm(critic_turn(models, record, "fake", 1), term)
    torch.testing.assert_close(loss, record["fake_loss"].float(), **LOSS)
    torch.testing.assert_close(norm, record["fake_grad_norm"].float(), **GRADIENT)


def test_critic_s_gan_loss(models, record):
    """Draw 0 is for the real images, draw 1 for the generated ones."""
    term = GANCritic(weight=1.0, view="view")
    loss, norm = critic_loss_and_norm(critic_turn(models, record, "critic_gan", 2), term)
    torch.testing.assert_close(loss, record["critic_gan_loss"].float(), **LOSS)
    torch.testing.assert_close(
        norm, record["critic_gan_grad_norm"].float(), rtol=THROUGH_THE_DISCRIMINATOR, atol=0
    )


def test_weight_scales_the_gradient_and_not_the_logged_loss(models, record):
    loss, gradient = gradient_at_the_image(
        generator_turn(models, record, "gen_gan", GAN_VIEWS), GANGenerator(weight=3e-3, view="view")
    )
    torch.testing.assert_close(loss, record["gen_gan_loss"].float(), **LOSS)
    assert_same_gradient(gradient, 3e-3 * record["gen_gan_grad"], THROUGH_THE_DISCRIMINATOR)


def test_a_shared_view_gives_the_sum_of_both_terms(models, record):
    """One encoder pass: with its graph for the discriminator, detached for the score."""
    turn = generator_turn(models, record, "dm", GAN_VIEWS)
    terms = {"dm": DistributionMatching(view="view"), "gan": GANGenerator(weight=1.0, view="view")}
    turn.backward(terms, 1.0)
    separate = generator_turn(models, record, "dm", GAN_VIEWS)
    _, gan = gradient_at_the_image(separate, GANGenerator(weight=1.0, view="view"))
    assert_same_gradient(turn.generated.grad, record["dm_grad"] + gan)
