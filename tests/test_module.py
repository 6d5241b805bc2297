"""Algorithm 1 under a real Lightning trainer, on points in the plane."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dmd2.data.toy import Toy2D
from dmd2.diffusion.conditioning import ClassLabels, Cond, Unconditional
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.sampling import FewStepSampler, NoisedReal
from dmd2.diffusion.schedules import Karras
from dmd2.diffusion.steps import DrawnStep, EveryStep
from dmd2.diffusion.training_times import UniformRows
from dmd2.losses import weighting
from dmd2.losses.objective import Objective
from dmd2.losses.term import Logs
from dmd2.losses.terms import Denoising, DistributionMatching, GANCritic, GANGenerator
from dmd2.losses.turns import Turn
from dmd2.losses.views import Models
from dmd2.nets.critic import Critic
from dmd2.nets.discriminator import VectorHead, discriminator_on
from dmd2.nets.lora import adapted
from dmd2.nets.toy import MLP
from dmd2.randomness import seeded
from dmd2.training.callbacks.implicit_alignment import ImplicitAlignment
from dmd2.training.lr_schedule import WarmupCosine
from dmd2.training.module import DMD, Network
from dmd2.training.share import split
from passes import Passes

FOUR = (1.0, 0.75, 0.5, 0.25)
ADAMW = partial(AdamW, lr=1e-3, weight_decay=0.01, fused=True)
pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"
)


def objective() -> Objective:
    """DMD2's, with one view a network."""
    edm = partial(weighting.edm, sigma_data=1.0)
    return Objective(
        views={"g": UniformRows(0.02, 0.98), "c": UniformRows()},
        generator={"dm": DistributionMatching(view="g"), "gan": GANGenerator(3e-3, view="g")},
        critic={"denoising": Denoising(edm, view="c"), "gan": GANCritic(1e-2, view="c")},
    )


def networks(conditioner: nn.Module) -> tuple[Models, Denoiser]:
    """A teacher that nobody trained, generator and critic near it, a fresh head; the same at every
    call.
    """
    with seeded(0, "test"):
        teacher = EDM(MLP(2, 16, 4), Karras(), sigma_data=1.0, taps=["enc.1"])
        generator, fake = copy.deepcopy(teacher), copy.deepcopy(teacher)
        with torch.no_grad():
            for network in (teacher, generator, fake):
                for parameter in network.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        head = discriminator_on(teacher, VectorHead, (2,), {})
    teacher.requires_grad_(False).eval()
    return Models(teacher, Critic(fake, head), conditioner), generator


def module(
    loss: Objective | None = None,
    times: Sequence[float] = (1.0,),
    optimizer: Callable[..., Optimizer] = ADAMW,
    kind: type[DMD] = DMD,
    lr_factor: Callable[[int], float] = lambda _: 1.0,
    conditioner: nn.Module | None = None,
    sampler: Callable[..., FewStepSampler] = FewStepSampler,
    **options: Any,
) -> DMD:
    models, generator = networks(conditioner or Unconditional())
    optimizers = {network: optimizer for network in ("generator", "critic")}
    options = {
        "critic_updates": 5,
        "max_grad_norm": 10.0,
        "accumulate": 1,
        "ema": [],
        "log_every": 50,
        "max_skipped_updates": 0,
        "seed": 0,
    } | options
    return kind(
        models,
        generator,
        loss or objective(),
        sampler(times),
        (2,),
        optimizers,
        lr_factor,
        **options,
    )


def toy(kind: type[Toy2D] = Toy2D, batch_size: int = 16) -> Toy2D:
    return kind(name="ring", num_train=512, num_test=64, batch_size=batch_size, seed=0)


def trainer(max_steps: int, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """A quiet trainer on the CPU, of one process where `options` do not ask for more."""
    return L.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        **{"devices": 1, **options},
    )


def fit(
    dmd: DMD, max_steps: int, *callbacks: L.Callback, data: Toy2D | None = None, **options: Any
) -> DMD:
    trainer(max_steps, *callbacks, **options).fit(dmd, datamodule=data or toy())
    return dmd


def weights(network: nn.Module) -> Tensor:
    """All parameters, flattened and copied."""
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


class Record(L.Callback):
    """Values of `read(module)` before the first iteration and after each."""

    def __init__(self, read: Callable[[DMD], Any]) -> None:
        self.read, self.values = read, []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.values.append(self.read(pl_module))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.values.append(self.read(pl_module))

    def changed_at(self) -> list[int]:
        """The iterations at which the value changed."""
        return [
            i
            for i, (a, b) in enumerate(zip(self.values, self.values[1:], strict=False))
            if not torch.equal(a, b)
        ]


# Counting


def test_a_step_is_a_batch_is_an_iteration():
    data, steps = (
        toy(),
        Record(lambda m: (m.trainer.global_step, m.iteration, m.trainer.datamodule.consumed)),
    )
    batches = Record(lambda m: m.trainer.fit_loop.epoch_loop.batch_progress.total.ready)
    fit(module(), 12, steps, batches, data=data)
    assert steps.values == [(i, i, i) for i in range(13)]
    assert batches.values == list(range(13))
    assert data.consumed == 12


def test_generator_updates_at_every_fifth_iteration_and_the_critic_at_all():
    networks = [Record(lambda m, p=p: weights(getattr(m, p))) for p in ("generator", "critic")]
    fit(module(critic_updates=5), 12, *networks)
    assert networks[0].changed_at() == [0, 5, 10]
    assert networks[1].changed_at() == list(range(12))


def test_the_critic_s_head_start_is_its_own_and_the_generator_s_turns_count_from_its_end():
    networks = [Record(lambda m, p=p: weights(getattr(m, p))) for p in ("generator", "critic")]
    fit(module(critic_updates=4, critic_head_start=3), 12, *networks)
    assert networks[0].changed_at() == [3, 7, 11]
    assert networks[1].changed_at() == list(range(12))


def test_learning_rate_factor_is_of_the_iteration_for_both_networks():
    factor = WarmupCosine(10, warmup=4, decay_from=0.5)
    rates = Record(
        lambda m: [o.param_groups[0]["lr"] for o in m.optimizers(use_pl_optimizer=False)]
    )
    fit(module(lr_factor=factor, critic_updates=5), 10, rates)
    expected = [[1e-3 * factor(i)] * 2 for i in range(11)]
    assert torch.allclose(torch.tensor(rates.values), torch.tensor(expected), rtol=1e-6, atol=0)


def test_the_critic_s_learning_rate_may_have_a_factor_of_its_own():
    falling, kept = WarmupCosine(4, decay_from=0.0), WarmupCosine(4, warmup=2)
    made = module(lr_factor=falling, critic_lr_factor=kept)
    rates = Record(lambda m: [o.param_groups[0]["lr"] for o in m.optimizers(False)])
    fit(made, 4, rates)
    expected = [[1e-3 * kept(i), 1e-3 * falling(i)] for i in range(5)]  # the critic's is the first
    assert torch.allclose(torch.tensor(rates.values), torch.tensor(expected), rtol=1e-6, atol=0)


# Averages


def test_averages_are_their_closed_form_one_update_a_generator_update():
    raw = Record(lambda m: weights(m.generator))
    dmd = fit(module(critic_updates=5, ema=[0.9, 0.5]), 12, raw)
    after = [raw.values[i + 1] for i in (0, 5, 10)]
    for decay, (name, mean) in zip((0.9, 0.5), dmd.ema.named().items(), strict=True):
        expected = decay**3 * raw.values[0].double()
        for i, value in enumerate(after):
            expected += (1 - decay) * decay ** (2 - i) * value.double()
        torch.testing.assert_close(weights(mean).double(), expected, rtol=1e-5, atol=1e-7)
        assert name == f"ema_{decay:g}" and weights(mean).dtype == torch.float32
    assert list(dmd.students()) == ["ema_0.9", "ema_0.5", "raw"]


# Implicit alignment


def test_implicit_alignment_moves_the_critic_after_an_iteration_with_a_generator_update():
    """Nothing else moves: psi is lambda^k psi + (1 - lambda^k) theta after k updates."""
    still = partial(SGD, lr=0.0, fused=True)
    dmd = module(critic_updates=2, optimizer=still)
    theta, psi = weights(dmd.generator), Record(lambda m: weights(m.critic.denoiser))
    fit(dmd, 6, psi, ImplicitAlignment(0.9))
    assert psi.changed_at() == [1, 3, 5]  # at the start of the iteration after the update
    expected = 0.9**3 * psi.values[0] + (1 - 0.9**3) * theta
    torch.testing.assert_close(psi.values[-1], expected)
    assert torch.equal(weights(dmd.generator), theta)
    for decay in (1.0, 1.5, -0.1):
        with pytest.raises(
            ValueError, match=rf"below 1, got {decay}; type .*alignment\.decay=0\.99"
        ):
            ImplicitAlignment(decay)


def test_implicit_alignment_refuses_networks_of_other_weights():
    pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")
    dmd = module()
    dmd.generator = adapted(dmd.generator.requires_grad_(False), 2, 2, ["up", "down"])
    with pytest.raises(ValueError, match=r"differ in shape; type lora=both of one rank, lora=none"):
        fit(dmd, 1, ImplicitAlignment(0.9))
    both, fake = module(), module().critic.denoiser.requires_grad_(False)
    both.generator = adapted(both.generator.requires_grad_(False), 2, 2, ["up", "down"])
    both.critic.denoiser = adapted(fake, 2, 2, ["up", "down"])
    fit(both, 1, ImplicitAlignment(0.9))


# The teacher


def test_teacher_stays_as_it_was_and_out_of_everything():
    dmd = module(ema=[0.9])
    teacher, before = dmd.models.teacher, weights(dmd.models.teacher)
    fit(dmd, 6)
    assert torch.equal(weights(teacher), before)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    own = {id(p) for p in teacher.parameters()}
    assert not own & {id(p) for p in dmd.parameters()}
    assert {name.split(".")[0] for name in dmd.state_dict()} == {"generator", "critic", "ema"}
    stepped = [
        p
        for o in dmd.optimizers(use_pl_optimizer=False)
        for g in o.param_groups
        for p in g["params"]
    ]
    assert not own & {id(p) for p in stepped}
    assert len(stepped) == len(list(dmd.generator.parameters())) + len(
        list(dmd.critic.parameters())
    )


# Samples


class Watched:
    """A term that notes the samples it is given and adds nothing of its own."""

    def __init__(self, term: Any) -> None:
        self.term, self.weight, self.view, self.needs = term, term.weight, term.view, term.needs
        self.seen: dict[int, Tensor] = {}

    def __call__(self, turn: Turn) -> tuple[Tensor, Logs]:
        self.seen[turn.draws.iteration] = turn.x.detach().clone()
        return self.term(turn)


@pytest.mark.parametrize("times", [(1.0,), FOUR])
def test_critic_trains_on_exactly_the_samples_of_the_generator_turn(times):
    loss = objective()
    generator_term, critic_term = Watched(loss.generator["dm"]), Watched(loss.critic["denoising"])
    loss.generator["dm"], loss.critic["denoising"] = generator_term, critic_term  # type: ignore[index]
    fit(module(loss, times, critic_updates=3), 7)
    assert list(generator_term.seen) == [0, 3, 6] and list(critic_term.seen) == list(range(7))
    for iteration, samples in generator_term.seen.items():
        assert torch.equal(samples, critic_term.seen[iteration])


def test_samples_are_of_the_generator_before_its_update_and_from_the_draws():
    loss = objective()
    term = Watched(loss.critic["denoising"])
    loss.critic["denoising"] = term  # type: ignore[index]
    before = Record(lambda m: copy.deepcopy(m.generator))
    starts = Record(
        lambda m: m.start(
            {"real": torch.zeros(16, 2), "label": torch.zeros(16, dtype=torch.long)}, 0
        )
    )
    fit(module(loss, critic_updates=2), 4, before, starts)
    for iteration in range(4):
        start = starts.values[iteration]
        with torch.no_grad():
            expected = before.values[iteration](start.x_t, start.t, start.cond)
        torch.testing.assert_close(term.seen[iteration], expected)


# Passes


def test_passes_of_a_generator_iteration_and_of_a_critic_iteration():
    dmd = module(critic_updates=2)
    networks = {
        "generator": dmd.generator,
        "teacher": dmd.models.teacher,
        "critic": dmd.critic.denoiser,
    }
    passes = {name: Passes(network) for name, network in networks.items()}
    after: list[dict[str, tuple[int, int]]] = []
    read = lambda _: {n: (len(p.encoder), len(p.decoder)) for n, p in passes.items()}  # noqa: E731
    fit(dmd, 2, record := Record(read))
    after = record.values
    assert after[1] == {"generator": (1, 1), "teacher": (1, 1), "critic": (2, 2)}
    assert passes["generator"].encoder[0] == (16, True) and passes["teacher"].encoder[0] == (
        16,
        False,
    )
    # The head's graph, its detached decoder; then real and generated samples together, the latter
    # decoded.
    assert passes["critic"].encoder[:2] == [(16, True), (32, True)]
    assert passes["critic"].decoder[:2] == [(16, False), (16, True)]
    assert after[2] == {"generator": (2, 2), "teacher": (1, 1), "critic": (3, 3)}
    assert passes["generator"].encoder[1] == (16, False)


def test_every_generator_parameter_has_a_gradient_in_bf16_after_a_walk():
    """Autocast remembers weights it cast without a graph; a pass with one must not find those."""
    dmd, arrived = module(times=FOUR, critic_updates=1), Counter[str]()
    for name, parameter in dmd.generator.named_parameters():
        note = lambda p, name=name: arrived.update({name: int(p.grad.any())})  # noqa: E731
        parameter.register_post_accumulate_grad_hook(note)
    steps = Record(
        lambda m: m.start({"real": torch.zeros(4, 2), "label": torch.zeros(4)}, 0).t[0].item()
    )
    fit(dmd, 8, steps, precision="bf16-mixed")
    assert len(set(steps.values[:8])) > 2
    assert arrived == {name: 8 for name, _ in dmd.generator.named_parameters()}


def test_a_turn_begins_with_no_gradients_in_memory():
    """Of either network: those of the last turn would lie beside this one's graph."""
    held: list[tuple[str, list[str]]] = []

    class Turns(DMD):
        def descend(self, name: Network, turns: Iterable[Turn]) -> None:
            held.append((name, [n for n, p in self.named_parameters() if p.grad is not None]))
            super().descend(name, turns)

    fit(module(kind=Turns, critic_updates=2, accumulate=2), 3)
    assert held == [(name, []) for name in ("generator", "critic", "critic", "generator", "critic")]


# Accumulation


class SharesByHand(L.Callback):
    """Before the iteration, the gradient of each share of the batch, alone."""

    def on_train_batch_start(
        self, trainer: L.Trainer, dmd: DMD, batch: Any, batch_idx: int
    ) -> None:
        self.before = {
            network: weights(getattr(dmd, network)) for network in ("generator", "critic")
        }
        self.gradients: dict[str, list[Tensor]] = {"generator": [], "critic": []}
        halves = [
            {k: v[i * 8 : i * 8 + 8] for k, v in batch.items() if isinstance(v, Tensor)}
            for i in range(2)
        ]
        for i, half in enumerate(halves):
            share, samples = dmd.start(half, i), []
            for network, turns in (
                ("generator", dmd.generator_turns([share], samples)),
                ("critic", dmd.critic_turns([share], samples)),
            ):
                updated = getattr(dmd, network)
                for turn in turns:
                    turn.backward(getattr(dmd.objective, network), 1.0)
                self.gradients[network].append(
                    torch.cat([p.grad.flatten() for p in updated.parameters()])
                )
                updated.zero_grad()


def test_accumulated_gradient_is_the_mean_of_the_shares():
    by_hand = SharesByHand()
    plain = partial(SGD, lr=1.0, fused=True)
    dmd = fit(module(accumulate=2, optimizer=plain, max_grad_norm=1e9), 1, by_hand)
    for network, (first, second) in by_hand.gradients.items():
        assert not torch.allclose(first, second)
        step = weights(getattr(dmd, network)) - by_hand.before[network]
        torch.testing.assert_close(step, -(first + second) / 2, rtol=1e-3, atol=2e-7)


class OnceNaN(DistributionMatching):
    """Logs a number that the second share alone has, and one that no share has."""

    def logs(self, turn, real, fake, num_scrubbed):
        missing = torch.full((), torch.nan)
        there = torch.full((), 3.0) if turn.draws.rank == 1 else missing
        return super().logs(turn, real, fake, num_scrubbed) | {"some": there, "none": missing}


def test_a_share_without_a_number_is_left_out_of_its_mean():
    logged = Record(lambda m: dict(m.logs))
    loss = objective()
    loss.generator["dm"] = OnceNaN(view="g")
    fit(module(loss, accumulate=2), 1, logged)
    logs = logged.values[-1]
    assert logs["generator/some"] == 3.0 and logs["generator/none"].isnan()


def test_shares_of_one_iteration_draw_as_one_batch_does():
    """Share i of n is to the draws what rank i of n is."""
    together = Record(
        lambda m: m.start({"real": torch.zeros(16, 2), "label": torch.zeros(16)}, 0).x_t
    )
    apart = Record(
        lambda m: torch.cat(
            [m.start({"real": torch.zeros(8, 2), "label": torch.zeros(8)}, i).x_t for i in range(2)]
        )
    )
    fit(module(), 1, together)
    fit(module(accumulate=2), 1, apart)
    assert torch.equal(together.values[0], apart.values[0])


@pytest.mark.parametrize("num", [2, 16], ids=["two shares", "a share for each sample"])
def test_shares_of_every_step_walk_as_one_batch_does(num: int):
    batch = {"real": torch.zeros(16, 2), "label": torch.zeros(16)}
    every = partial(FewStepSampler, steps=EveryStep())
    together = Record(lambda m: m.start(batch, 0))
    apart = Record(lambda m: [m.start(part, i) for i, part in enumerate(split(batch, num))])
    fit(module(times=FOUR, sampler=every), 1, together)
    fit(module(times=FOUR, sampler=every, accumulate=num), 1, apart)
    share, shares = together.values[0], apart.values[0]
    assert torch.equal(share.t, torch.tensor(FOUR).repeat(4))
    assert torch.equal(share.t, torch.cat([part.t for part in shares]))
    torch.testing.assert_close(share.x_t, torch.cat([part.x_t for part in shares]))


def test_every_step_of_one_is_the_step_that_is_drawn():
    trained = [
        weights(fit(module(sampler=partial(FewStepSampler, steps=steps)), 6))
        for steps in (DrawnStep(), EveryStep())
    ]
    assert torch.equal(*trained)


def test_accumulation_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValueError, match="accumulate=3 does not divide a batch of 16"):
        fit(module(accumulate=3), 1)


def test_gradients_are_clipped_to_the_norm():
    by_hand = SharesByHand()
    plain = partial(SGD, lr=1.0, fused=True)
    dmd = fit(module(accumulate=2, optimizer=plain, max_grad_norm=1e-3), 1, by_hand)
    for network, (first, second) in by_hand.gradients.items():
        mean = (first + second) / 2
        assert mean.norm() > 2e-3
        step = weights(getattr(dmd, network)) - by_hand.before[network]
        torch.testing.assert_close(step, -1e-3 * mean / mean.norm(), rtol=1e-2, atol=2e-7)


# Numbers that are not finite


class Poisoned(Toy2D):
    """One coordinate of one real point of batch 3, or of others, is NaN."""

    poisoned: tuple[int, ...] = (3,)

    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int = 0
    ) -> dict[str, Any]:
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if batch["index"] in self.poisoned:
            batch["real"][0, 0] = float("nan")
        return batch


def moments(dmd: DMD) -> Tensor:
    """The state of the critic's optimizer."""
    optimizer = dmd.optimizers(use_pl_optimizer=False)[0]
    return torch.cat(
        [v.flatten() for state in optimizer.state.values() for v in state.values()]
        or [torch.zeros(1)]
    )


@pytest.mark.parametrize("log_every", [1, 4, 6])
def test_a_bad_batch_changes_nothing_and_the_run_stops_at_the_next_report(log_every):
    critic, state = Record(lambda m: weights(m.critic)), Record(lambda m: moments(m).clone())
    with pytest.raises(
        FloatingPointError, match=r"iteration 4: critic/loss_gan.*the step was not applied"
    ) as error:
        fit(module(log_every=log_every), 20, critic, state, data=toy(Poisoned))
    assert "generator" not in str(error.value) and "critic/loss_denoising" not in str(error.value)
    stopped = (
        -(-4 // log_every) * log_every - 1
    )  # the callback does not see the iteration that raised
    assert len(critic.values) == stopped + 1
    assert critic.changed_at() == [i for i in range(stopped) if i != 3]
    if stopped > 3:
        assert torch.equal(state.values[3], state.values[4])
    assert all(value.isfinite().all() for value in critic.values)


class Explodes:
    """A generator term that is NaN in iteration 4."""

    weight, view, needs = 1.0, "g", frozenset[str]()

    def __call__(self, turn: Turn) -> tuple[Tensor, Logs]:
        return turn.x.square().mean() * (float("nan") if turn.draws.iteration == 4 else 1.0), {}


def test_a_bad_generator_step_is_not_applied_and_named():
    loss = objective()
    loss.generator["explodes"] = Explodes()  # type: ignore[index]
    networks = [Record(lambda m, p=p: weights(getattr(m, p))) for p in ("generator", "critic")]
    with pytest.raises(FloatingPointError, match="iteration 5: generator/loss_explodes"):
        fit(module(loss, critic_updates=2, log_every=7), 20, *networks)
    assert networks[0].changed_at() == [0, 2]
    assert networks[1].changed_at() == list(range(6))


class Infinite(L.Callback):
    """One number of the generator's gradient is infinite in iteration 4."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        weight = next(pl_module.generator.parameters())  # type: ignore[union-attr]
        bad = torch.zeros_like(weight)
        bad.view(-1)[0] = float("inf")
        weight.register_hook(
            lambda gradient: gradient + bad if trainer.global_step == 4 else gradient
        )


def test_an_infinite_gradient_is_not_applied_and_named():
    generator = Record(lambda m: weights(m.generator))
    with pytest.raises(FloatingPointError, match="iteration 5: generator/gradient_norm not finite"):
        fit(module(critic_updates=2, log_every=7), 20, Infinite(), generator)
    assert generator.changed_at() == [0, 2]


def test_as_many_bad_steps_as_allowed_are_skipped_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = trainer(5)
    first.fit(module(log_every=1, max_skipped_updates=2), datamodule=toy(Poisoned))
    first.save_checkpoint(tmp_path / "five.ckpt")
    said = capsys.readouterr().err
    assert "iteration 4: critic/loss_gan" in said and "(1 so far, max_skipped_updates=2)" in said
    second, options = toy(Poisoned), {"ckpt_path": tmp_path / "five.ckpt", "weights_only": True}
    second.poisoned = (6, 8)
    with pytest.raises(
        FloatingPointError, match=r"iteration 9: .*\(3 so far, max_skipped_updates=2\)"
    ):
        trainer(20).fit(module(log_every=1, max_skipped_updates=2), datamodule=second, **options)
    assert "iteration 7: " in capsys.readouterr().err


def test_an_optimizer_that_is_not_fused_skips_a_step_too():
    """Iterations are counted all the same."""
    critic, state = Record(lambda m: weights(m.critic)), Record(lambda m: moments(m).clone())
    options = {"optimizer": partial(AdamW, lr=1e-3), "max_skipped_updates": 1}
    dmd = fit(module(**options), 6, critic, state, data=toy(Poisoned))
    assert dmd.iteration == 6 and critic.changed_at() == state.changed_at() == [0, 1, 2, 4, 5]


# Waiting for the device

SYNCHRONISES = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
}
READS = {"tolist", "item", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"}


@contextmanager
def counting(seen: Counter[str]) -> Iterator[None]:
    """Count what would wait for a GPU: operators by dispatch, and methods that read a tensor from
    Python.
    """

    class Dispatched(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = func.overloadpacket.__name__
            indices = args[1] if name in ("index", "index_put", "index_put_") else []
            if name in SYNCHRONISES or any(
                i is not None and i.dtype == torch.bool for i in indices
            ):
                seen[name] += 1
            return func(*args, **(kwargs or {}))

    class Called(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = getattr(func, "__name__", "")
            if name in READS:
                seen[name] += 1
            return func(*args, **(kwargs or {}))

    with Dispatched(), Called():
        yield


class Counting(DMD):
    """Notes for each iteration what it read."""

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        seen: Counter[str] = Counter()
        with counting(seen):
            super().training_step(batch, batch_index)
        self.__dict__.setdefault("read", []).append(dict(seen))


@pytest.mark.parametrize("times", [(1.0,), FOUR])
def test_an_iteration_that_logs_nothing_reads_nothing(times):
    """Generator turns (0, 3, 6) and critic turns alike; the report at the fifth reads twice."""
    dmd = fit(
        module(times=times, kind=Counting, critic_updates=3, accumulate=2, ema=[0.9], log_every=5),
        8,
    )
    quiet = [read for i, read in enumerate(dmd.read) if i != 4]
    assert quiet == [{}] * 7
    assert dmd.read[4].get("tolist", 0) > 0


def test_the_counter_sees_what_waits():
    masked, copied = lambda x: x[x > 0], lambda x: x.cpu()
    for wait in (Tensor.item, bool, float, Tensor.tolist, Tensor.nonzero, masked, copied):
        seen: Counter[str] = Counter()
        with counting(seen):
            wait(torch.ones(1))
        assert seen


# Resuming


def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path: Path):
    def make() -> DMD:
        factor = WarmupCosine(14, warmup=3, decay_from=0.3)
        return module(times=FOUR, critic_updates=5, ema=[0.9], lr_factor=factor, accumulate=2)

    whole = fit(make(), 14)
    first = trainer(7)
    first.fit(make(), datamodule=toy())
    first.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(1234)
    resumed, data = make(), toy()
    trainer(14).fit(resumed, datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert resumed.iteration == 14 and data.consumed == 14
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())
    for a, b in zip(*(m.optimizers(use_pl_optimizer=False) for m in (whole, resumed)), strict=True):
        for x, y in zip(a.state.values(), b.state.values(), strict=True):
            assert all(torch.equal(x[key], y[key]) for key in x)
    assert torch.equal(moments(whole), moments(resumed))


def test_the_seed_is_the_run():
    same = [weights(fit(module(seed=seed), 3)) for seed in (0, 0, 1)]
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])


# Labels


def test_labels_are_drawn_uniformly_whatever_the_data_s_are():
    drawn = Record(
        lambda m: m.start({"real": torch.zeros(3000, 2), "label": torch.ones(3000).long()}, 0)
    )
    fit(module(conditioner=ClassLabels(3)), 1, drawn)
    start = drawn.values[0]
    assert (start.cond["label"].sum(0) - 1000).abs().max() < 110  # four standard deviations
    assert start.real_cond["label"].sum(0).tolist() == [0, 3000, 0]


def test_own_and_real_labels_go_through_the_conditioner_once():
    """A text encoder is a pass: one of both is faster than two."""
    asked: list[int] = []

    class Counted(ClassLabels):
        def forward(self, labels: Tensor) -> Cond:
            asked.append(len(labels))
            return super().forward(labels)

    fit(module(conditioner=Counted(3), critic_updates=2), 3)
    assert asked == [32] * 3


def test_noised_real_samples_come_with_their_own_labels_and_a_critic_that_judges_none():
    """Also where no term of the loss reads real samples."""
    batch = {"real": torch.full((16, 2), 5.0), "label": torch.ones(16, dtype=torch.long)}
    starts = Record(lambda m: m.start(batch, 0))
    edm = Denoising(partial(weighting.edm, sigma_data=1.0), view="c")
    views = {"g": UniformRows(0.02, 0.98), "c": UniformRows()}
    loss = Objective(views, {"dm": DistributionMatching(view="g")}, {"denoising": edm})
    fit(module(loss, FOUR, sampler=NoisedReal, conditioner=ClassLabels(3)), 12, starts)
    assert {int(start.steps.index[0]) for start in starts.values} == {0, 1, 2, 3}
    for start in starts.values:
        sigma = Karras().alpha_sigma(start.t)[1][:, None]
        step = int(start.steps.index[0])
        expected = 5 * (step > 0) + sigma * start.draws.normal(f"noise{step}", (16, 2))
        torch.testing.assert_close(start.x_t, expected)
        assert start.cond["label"].argmax(1).tolist() == [1] * 16
