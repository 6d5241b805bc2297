"""What single loss terms need of samples, batches, steps and pairs, checked before training."""

from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.diffusion.first_jump import FirstJump
from dmd2.diffusion.sampling import FewStepSampler, ODEWalk
from dmd2.distributed.rank_zero import warn
from dmd2.losses.objective import Objective
from dmd2.losses.terms import EmbeddingDistance, FDivergence, LaterStepsMatching
from dmd2.runs.build import build, makes

COMPARING = (EmbeddingDistance, FDivergence)
"""Terms that estimate something of all samples from those of a pass."""
SAMPLES_TO_COMPARE = 16
"""In a pass, for these terms. At worst, where h(r) = r and log r is from N(0, 1.5^2), the weights
h(r) / mean h(r) of f-distill are too small where r is large: by a fifth over 16 samples, by half
over four.
"""


def check_terms(objective: Objective, data: DataModule, accumulate: int) -> None:
    """Raise ValueError where a generator term is not for these samples or batches; say where a pass
    has few samples for one.
    """
    for name, term in objective.generator.items():
        if isinstance(term, EmbeddingDistance) and len(data.shape) != 3:
            raise ValueError(
                f"loss.generator.{name} reads images or latents [C, H, W], and a sample has the "
                f"shape {data.shape}; take it out: loss.generator.{name}=null"
            )
        num = data.batch_size // accumulate
        if not isinstance(term, COMPARING) or num >= SAMPLES_TO_COMPARE:
            continue
        few = (
            f"loss.generator.{name} compares samples of a pass, and a pass has "
            f"{num if num > 1 else 'one'} (data.batch_size={data.batch_size}, "
            f"accumulate={accumulate})"
        )
        remedy = "type a larger data.batch_size or global_batch, or a smaller accumulate"
        if num < 2:
            raise ValueError(f"{few}; {remedy}")
        warn(f"{few}, where {SAMPLES_TO_COMPARE} are enough; {remedy}")


def check_later_steps(objective: Objective, sampler: FewStepSampler, config: Config) -> None:
    """Raise ValueError where a term that leaves out the first step lacks what it needs; say where
    the critic does not tell that step's samples from the others.
    """
    has_jumps = of_first_step(config["pairs"])
    for name, term in objective.generator.items():
        if not isinstance(term, LaterStepsMatching):
            continue
        lacks = ["several sampling steps"] if len(sampler.times) == 1 else []
        if "pairs" in objective.needs and not has_jumps:
            lacks.append("pairs of the teacher's first step")
        if lacks:
            raise ValueError(
                f"loss.generator.{name} matches all sampling steps but the first, and lacks "
                f"{' and '.join(lacks)}; type experiment=digits_dp_dmd, whose file in "
                "conf/experiment shows them, or loss=no_gan pairs=null"
            )
        if config["critic_step_layer"] is None:
            warn(
                f"loss.generator.{name} matches all sampling steps but the first, and a critic "
                "that is not told the step has one score for all of them, which is wrong for the "
                "later ones; type critic_step_layer=map_layer0 for EDM's networks, "
                "critic_step_layer=time_embedding for diffusers' U-Nets"
            )


def check_first_step(sampler: FewStepSampler, pairs: Config | None, data: DataModule) -> None:
    """Raise ValueError where pairs of a first step are not those of this sampler, or are to be real
    samples.
    """
    if pairs is None or not of_first_step(pairs):
        return
    if data.reals == "pairs":
        raise ValueError(
            "data.reals=pairs takes the images of pairs as real ones, and the targets of the "
            "teacher's first step are no clean images; type data.reals=data, or pairs as in "
            "experiment=digits_teacher_samples"
        )
    if not isinstance(sampler, ODEWalk):
        raise ValueError(
            "the first step is to land where the teacher's ODE is, and the sampler then adds fresh "
            "noise; type sampler=four_step_ode"
        )
    solver: FirstJump = build(pairs["solver"])
    if (own := [solver.start, solver.until]) != [*sampler.times[:2]]:
        raise ValueError(
            f"pairs.solver.times begin with {own}, and the student's with {[*sampler.times[:2]]}; "
            "type 'pairs.solver.times=${sampler.times}'"
        )


def of_first_step(pairs: Config | None) -> bool:
    """Whether pairs are of a noise and the target of a first step."""
    return pairs is not None and makes(pairs["solver"], FirstJump)
