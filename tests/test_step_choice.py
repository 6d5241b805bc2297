"""Which of the sampler's steps a row of the batch belongs to: all of them at once, or one drawn."""

import pytest
import torch
from torch import Tensor, nn

from dmd2.diffusion.conditioning import Cond, Unconditional
from dmd2.diffusion.denoiser import Denoiser, Encoding
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.sampling import FewStepSampler, NoisedReal, ODEWalk
from dmd2.diffusion.schedules import Flow, Karras
from dmd2.diffusion.steps import DrawnStep, EveryStep, StepChoice
from dmd2.diffusion.training_times import UniformRows
from dmd2.losses.terms import DistributionMatching
from dmd2.losses.turns import CriticTurn, GeneratorTurn
from dmd2.losses.views import Models
from dmd2.nets.critic import Critic, step_embedding_on
from dmd2.nets.toy import MLP, GaussianMixture
from dmd2.randomness import Draws

FOUR = (1.0, 0.75, 0.5, 0.25)
STEP = EveryStep()(Draws(0, 0), 4, 8)


def awake(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def point(at: list[float]) -> GaussianMixture:
    """The exact denoiser of one point: x0_hat is the point, whatever x_t."""
    return GaussianMixture(Flow(), torch.tensor([at]), torch.tensor([1e-12]), torch.ones(1))


def test_row_i_belongs_to_step_i_mod_their_number_in_any_split():
    assert STEP == [0, 1, 2, 3, 0, 1, 2, 3]
    halves = [EveryStep()(Draws(0, 0, rank, 2), 4, 4) for rank in range(2)]
    assert halves[0] + halves[1] == STEP
    with pytest.raises(ValueError, match=r"6 samples .* no multiple of the 4 .*=8 .*DrawnStep"):
        EveryStep()(Draws(0, 0), 4, 6)


def test_the_drawn_step_is_the_same_for_all_rows_and_ranks():
    steps = [DrawnStep()(Draws(0, 3, rank, 2), 4, 5) for rank in range(2)]
    assert steps[0] == steps[1] and len(set(steps[0])) == 1


@pytest.mark.parametrize("kind", [FewStepSampler, ODEWalk, NoisedReal])
def test_each_row_walks_to_its_own_step_as_it_would_alone(kind: type[FewStepSampler]):
    generator, sampler = EDM(awake(MLP(2, 16, 2)), Karras()), kind(FOUR)
    noise = [torch.randn(8, 2, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    real, passed = torch.rand(8, 2), []
    generator.register_forward_hook(lambda _m, args, _o: passed.append(len(args[0])))
    x_t, t = sampler.training_input(generator, noise, {}, STEP, real)
    assert t.tolist() == [*FOUR, *FOUR]
    # Two rows leave at each step.
    assert passed == ([] if kind is NoisedReal else [6, 4, 2])
    for i, step in enumerate(STEP):
        alone = [n[i : i + 1] for n in noise]
        expected = sampler.training_input(generator, alone, {}, [step], real[i : i + 1])
        torch.testing.assert_close((x_t[i : i + 1], t[i : i + 1]), expected)


def test_the_steps_have_their_own_times_and_the_next():
    steps = FewStepSampler(FOUR).steps_at(STEP)
    assert steps.t.tolist() == [*FOUR, *FOUR]
    assert steps.next_t.tolist() == [0.75, 0.5, 0.25, 0.0] * 2


class VectorOfStep(Denoiser):
    """A generator whose sample is one learned vector for each of the four times."""

    prediction = "x0"

    def __init__(self) -> None:
        super().__init__(nn.Identity(), Flow())
        self.vectors = nn.Parameter(torch.arange(8.0).view(4, 2))

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        return Encoding(x_t, t, [], []).last(num_decoded)

    def finish(self, encoding: Encoding) -> Tensor:
        return self.vectors[(4 * (1 - encoding.t)).round().long()]


@pytest.mark.parametrize("choice", [EveryStep(), DrawnStep()])
def test_gradient_is_the_mean_over_the_steps_of_the_batch(choice: StepChoice):
    """Both scores are points, so that each step's gradient is (fake - real) / mean |x - real|."""
    real, fake = torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.0])
    models = Models(point(real.tolist()), Critic(point(fake.tolist()), None), Unconditional())
    generator, sampler = VectorOfStep(), FewStepSampler(FOUR, steps=choice)
    step = choice(Draws(0, 0), 4, 8)
    noise = [torch.randn(8, 2) for _ in range(4)]
    x = generator(*sampler.training_input(generator, noise, {}, step, None), {})
    terms = {"dm": DistributionMatching(view="v")}
    turn = GeneratorTurn(
        models=models,
        draws=Draws(0, 0),
        times={"v": UniformRows(0.1, 0.9)},
        gan_views=frozenset(),
        decoded=frozenset({("teacher", "v"), ("critic", "v")}),
        x=x.detach(),
        cond={},
        steps=sampler.steps_at(step),
        generated=x,
        pair_image=None,
    )
    turn.backward(terms, 1.0)
    distance = (generator.vectors.detach() - real).abs().mean(1, keepdim=True)
    share = torch.bincount(torch.tensor(step), minlength=4)[:, None] / 8  # 1/4 each, or all of one
    torch.testing.assert_close(generator.vectors.grad, share * (fake - real) / distance / 2)


def test_the_critic_is_told_the_step_of_each_row_also_of_real_ones():
    denoiser = EDM(awake(MLP(2, 16, 2)), Karras())
    critic = Critic(
        denoiser, None, step_embedding=step_embedding_on(denoiser, "embed", 4, (2,), {})
    )
    torch.nn.init.normal_(critic.step_embedding.vectors)
    turn = CriticTurn(
        models=Models(denoiser, critic, Unconditional()),
        draws=Draws(0, 0),
        times={"v": UniformRows()},
        gan_views=frozenset({"v"}),
        decoded=frozenset({("critic", "v")}),
        x=torch.randn(8, 2),
        cond={},
        steps=FewStepSampler(FOUR).steps_at(STEP),
        real=torch.randn(4, 2),
        real_cond={},
    )
    view, found = turn.view("v"), turn.critic_x0("v")
    assert view.steps.index.tolist() == [0, 1, 2, 3, *STEP]
    for step in range(4):
        # After four real rows come eight generated ones.
        x_t, t = view.x_t[4 + step :: 4], view.t[4 + step :: 4]
        alone = critic.encode(x_t, t, {}, torch.full((2,), step))
        torch.testing.assert_close(denoiser.decode(alone), found[step::4])
