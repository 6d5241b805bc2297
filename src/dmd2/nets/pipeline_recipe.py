"""How a published pipeline of each family is distilled with LoRA: the values that differ by family.

`conf/experiment/distil.yaml` reads them; what all families share stands there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dmd2.diffusion.sampling import FewStepSampler, ODEWalk
from dmd2.diffusion.steps import DrawnStep, StepChoice
from dmd2.io.hub import network_of
from dmd2.nets.pipeline_transformer import transformer_config


@dataclass(frozen=True)
class Recipe:
    """Learning rates of AdamW, LoRA's sizes, and how the student goes from step to step.

    A learning rate goes with LoRA's scale alpha / rank, by which its product is multiplied.

    generator_lr, critic_lr  Learning rates.
    rank, alpha              LoRA's rank, and alpha, of generator and critic.
    sampler                  `ODEWalk`, or `FewStepSampler`, which adds fresh noise.
    """

    generator_lr: float
    critic_lr: float
    rank: int
    alpha: int
    sampler: type[FewStepSampler]


# DMD2's LoRA on SDXL (Yin et al. 2024b, and their code): 5e-5 for both, rank 64, alpha 8, and
# fresh noise between the steps, which is diffusers' LCMScheduler.
UNETS = Recipe(5e-5, 5e-5, 64, 8, FewStepSampler)
# LightX2V's DMD with LoRA on Qwen-Image and on FLUX.2-klein: 1e-4 and 2e-5, rank and alpha 32, a
# walk along the ODE. So samples whoever uses a flow by Euler's method (SD3.5-Turbo,
# FLUX.1-schnell, Qwen-Image-Lightning, Z-Image-Turbo); fresh noise hurts there (SD3.5-Flash).
FLOWS = Recipe(1e-4, 2e-5, 32, 32, ODEWalk)
# TDM (Luo et al. 2025) on PixArt, SD3 and SD3.5: 4e-6 and 2e-5, LoRA at the scale 1/8, the ODE.
TDM = Recipe(4e-6, 2e-5, 64, 8, ODEWalk)
RECIPES = {
    "SD3Transformer2DModel": TDM,
    "PixArtTransformer2DModel": TDM,
    "QwenImageTransformer2DModel": FLOWS,
    "Flux2Transformer2DModel": FLOWS,
    # For these nobody has published LoRA with distribution matching: as their kin above.
    "FluxTransformer2DModel": FLOWS,
    "ChromaTransformer2DModel": FLOWS,
    "ZImageTransformer2DModel": FLOWS,
    "SanaTransformer2DModel": FLOWS,
    "AuraFlowTransformer2DModel": FLOWS,
}
"""By the class of a transformer; DiT has none, as it reads no text."""


def recipe_of(source: str) -> Recipe:
    """The recipe of a pipeline's family; raises ValueError where there is none."""
    if network_of(source) == "unet":
        return UNETS
    kind = transformer_config(source)["_class_name"]
    if kind not in RECIPES:
        raise ValueError(f"the network of {source} is a {kind}, and experiment=distil has no such")
    return RECIPES[kind]


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


def pipeline_sampler(
    source: str,
    times: Sequence[float],
    steps: StepChoice = DrawnStep(),  # noqa: B008
) -> FewStepSampler:
    """The sampler of a pipeline's student, at these times.

    steps  How a training batch is divided among them, as of `FewStepSampler`.
    """
    return recipe_of(source).sampler(times, steps)
