"""How published pipelines are distilled with LoRA: learning rates, LoRA's sizes, and the sampler.

A row of `nets.pipeline_families` names one of them; what all families share stands in
`conf/experiment/distil.yaml`.
"""

from dataclasses import dataclass

from dmd2.diffusion.sampling import FewStepSampler, ODEWalk


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
# For other flows nobody has published LoRA with distribution matching: as these, their kin.
FLOWS = Recipe(1e-4, 2e-5, 32, 32, ODEWalk)
# TDM (Luo et al. 2025) on PixArt, SD3 and SD3.5: 4e-6 and 2e-5, LoRA at the scale 1/8, the ODE.
TDM = Recipe(4e-6, 2e-5, 64, 8, ODEWalk)
