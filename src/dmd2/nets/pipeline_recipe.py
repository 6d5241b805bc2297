"""The values of `conf/experiment/distil.yaml` that differ by family, as of `nets.recipe`."""

from collections.abc import Sequence
from typing import Literal

from dmd2.diffusion.sampling import FewStepSampler
from dmd2.diffusion.steps import DrawnStep, StepChoice
from dmd2.nets.pipeline_families import family_of, network_config
from dmd2.nets.recipe import Recipe


def recipe_of(source: str) -> Recipe:
    """The recipe of a pipeline's family; raises ValueError where there is none."""
    if (recipe := family_of(source).recipe) is None:
        kind = network_config(source)["_class_name"]
        raise ValueError(f"the network of {source} is a {kind}, and experiment=distil has no such")
    return recipe


def pipeline_lr(source: str, network: Literal["generator", "critic"]) -> float:
    """The learning rate of a pipeline's student or critic."""
    recipe = recipe_of(source)
    return recipe.generator_lr if network == "generator" else recipe.critic_lr


def pipeline_rank(source: str) -> int:
    """The rank of LoRA on a pipeline."""
    return recipe_of(source).rank


def pipeline_alpha(source: str) -> int:
    """LoRA's alpha on a pipeline."""
    return recipe_of(source).alpha


def pipeline_step_layer(source: str, times: Sequence[float]) -> str | None:
    """The layer of a pipeline's network by which a critic is told the sampling step: the one that
    embeds the time. None where it has none, or where there is one step.
    """
    return family_of(source).time_layer if len(times) > 1 else None


def pipeline_sampler(
    source: str,
    times: Sequence[float],
    steps: StepChoice = DrawnStep(),  # noqa: B008
) -> FewStepSampler:
    """The sampler of a pipeline's student, at these times.

    steps  How a training batch is divided among them, as of `FewStepSampler`.
    """
    return recipe_of(source).sampler(times, steps)
