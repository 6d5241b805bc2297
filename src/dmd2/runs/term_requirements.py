"""What single loss terms need of samples, batches, steps and pairs, checked before training."""

from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.diffusion.first_jump import FirstJump
from dmd2.diffusion.sampling import FewStepSampler, ODEWalk
from dmd2.distributed.rank_zero import warn
from dmd2.losses.objective import Objective
from dmd2.losses.terms import EmbeddingDistance, LaterStepsMatching
from dmd2.runs.build import build

COMPARING = ("EmbeddingDistance", "FDivergence")
"""Terms whose value for a sample depends on the others of its pass."""
SAMPLES_TO_COMPARE = 16
"""In a pass, for these terms. By f-distill's weights h(r) / mean h(r), of h(r) = r and log r from
N(0, 1.5^2), large ratios count a fifth less in 16 samples than in very many, and in four half.
"""


def check_first_step(objective: Objective, sampler: FewStepSampler, config: Config) -> None:
    """Raise ValueError where DP-DMD's terms or pairs lack what they need, or do not suit the
    student's steps; say where the critic does not know the first one.
    """
    pairs = config["pairs"]
    jumps = pairs is not None and pairs["solver"]["_target_"].endswith(".FirstJump")
    for name, term in objective.generator.items():
        if not isinstance(term, LaterStepsMatching):
            continue
        lacks = ["several sampling steps"] if len(sampler.times) == 1 else []
        if "pairs" in objective.needs and not jumps:
            lacks.append("pairs of the teacher's first step")
        if lacks:
            raise ValueError(
                f"loss.generator.{name} matches all sampling steps but the first, and lacks "
                f"{' and '.join(lacks)}; type experiment=digits_dp_dmd, whose file in "
                "conf/experiment shows them, or loss=no_gan pairs=null"
            )
        if config["critic_step_layer"] is None:
            warn(
                f"loss.generator.{name} leaves the first step's samples as they are, and a critic "
                "that is not told the step takes them and the later ones' for one mixture, which "
                "draws the later ones away; type critic_step_layer=LAYER, which embeds its time"
            )
    if pairs is None or not jumps:
        return
    if config["data"].get("reals") == "pairs":
        raise ValueError(
            "data.reals=pairs takes the images of pairs as real ones, and those of the teacher's "
            "first step are none; type data.reals=data, or pairs of a solver's images, as in "
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


def check_terms(objective: Objective, data: DataModule, accumulate: int) -> None:
    """Raise ValueError where a generator term is not for these samples or batches."""
    for name, term in objective.generator.items():
        if isinstance(term, EmbeddingDistance) and len(data.shape) != 3:
            raise ValueError(
                f"loss.generator.{name} reads images or latents [C, H, W], and a sample has the "
                f"shape {data.shape}; take it out: loss.generator.{name}=null"
            )
        num = data.batch_size // accumulate
        if type(term).__name__ not in COMPARING or num >= SAMPLES_TO_COMPARE:
            continue
        few = (
            f"loss.generator.{name} compares samples of a pass, and a pass has "
            f"{num if num > 1 else 'one'} (data.batch_size={data.batch_size}, "
            f"accumulate={accumulate})"
        )
        remedy = "type a larger data.batch_size or global_batch, or a smaller accumulate"
        if num < 2:
            raise ValueError(f"{few}; {remedy}")
        warn(f"{few}, which is fewer than {SAMPLES_TO_COMPARE}; {remedy}")
