"""How a stock pipeline of diffusers samples as a student was trained: its scheduler, and what its
call is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dmd2.diffusion.denoiser import Prediction
from dmd2.diffusion.sampling import FewStepSampler, ODEWalk
from dmd2.diffusion.schedules import VP, Flow
from dmd2.io.hub import PREDICTION_TYPES
from dmd2.nets.diffusers_net import DiffusersNet
from dmd2.nets.pipeline_families import family_of_network


@dataclass(frozen=True)
class Sampling:
    """How an exported student is sampled.

    rows       Of the schedule's table, one a step.
    network    The folder of its network in the pipeline.
    scheduler  The class of its scheduler.
    call       What the pipeline's call is given beside prompts.
    sizes      Heights and widths of the buckets that it was trained on, if any.
    """

    rows: list[int]
    network: str
    scheduler: str
    call: dict[str, Any]
    sizes: Sequence[Sequence[int]] = ()


def scheduler_for(generator: DiffusersNet, sampler: FewStepSampler) -> Any:
    """diffusers' scheduler with the student's noise levels, which goes on as its sampler does.

    Raises ValueError where diffusers has none, e.g. for a U-Net of a flow, or an ODE's walk at
    times that are not evenly spaced.
    """
    schedule, walks = generator.schedule, isinstance(sampler, ODEWalk)
    takes = family_of_network(generator.model).takes
    if isinstance(schedule, Flow) and "sigmas" in takes:
        return flow_scheduler(schedule, walks)
    if not isinstance(schedule, VP):
        raise ValueError(
            f"a {type(generator.model).__name__} on the schedule {type(schedule).__name__} is "
            "sampled by no pipeline of diffusers"
        )
    rows = rows_of(generator, sampler)
    if not walks:
        return lcm_scheduler(schedule, generator.prediction, rows)
    even = [schedule.num_rows * (i + 1) // len(rows) - 1 for i in reversed(range(len(rows)))]
    if rows != even:
        raise ValueError(
            f"diffusers' DDIM walks along the rows {even}, and this student along {rows}; only "
            "students that add noise have rows of their own"
        )
    return ddim_scheduler(schedule, generator.prediction)


def rows_of(generator: DiffusersNet, sampler: FewStepSampler) -> list[int]:
    """The rows of the schedule's table at which a student is sampled."""
    rows: list[int] = generator.schedule.row_of_time(torch.tensor(sampler.times)).tolist()
    return rows


def arguments_of(
    generator: DiffusersNet,
    sampler: FewStepSampler,
    resolution: int | None,
    length: int | None,
) -> dict[str, Any]:
    """What a pipeline's call is given such that it samples at the student's times, unguided.

    Without them it takes times of its own: Stable Diffusion 3 and SANA go down to a noise level of
    nearly 0 in four steps.

    resolution  Height and width of the student's images; None leaves them to the pipeline.
    length      Tokens of a caption, where it was trained on another number than the pipeline's.
    """
    family, schedule = family_of_network(generator.model), generator.schedule
    given: dict[str, Any] = {"num_inference_steps": len(sampler.times)}
    if isinstance(schedule, Flow):
        # Before the shift, which is the scheduler's matter.
        given["sigmas"] = list(sampler.times)
    elif "timesteps" in family.takes and not isinstance(sampler, ODEWalk):
        # DDIM, which walks along the ODE, takes no rows but its own.
        given = {"timesteps": rows_of(generator, sampler)}
    # A scale that it was trained at is an input here, and no guidance.
    scale = generator.embedded_guidance
    given |= family.unguided if scale is None else {"guidance_scale": scale}
    if "sizes" in family.takes and resolution is not None:
        given |= {"height": resolution, "width": resolution}
    if "sizes" in family.takes and length is not None:
        given["max_sequence_length"] = length
    return given


def flow_scheduler(schedule: Flow, walks: bool) -> Any:
    """Euler's method for flows, with the student's shift; where it does not walk along the ODE,
    with fresh noise in each step.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler  # noqa: PLC0415

    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=schedule.num_rows,
        shift=schedule.shift,
        stochastic_sampling=not walks,
    )


def lcm_scheduler(schedule: VP, prediction: Prediction, rows: list[int]) -> Any:
    """diffusers' LCM scheduler: denoise, add fresh noise, denoise (DMD2 section 4.5).

    Without `timesteps` in the call it takes 999, 749, 499 and 249 for four steps; one step at 399
    has to be asked for.
    """
    # LCM's timesteps are every (1000 / this)-th row of the table, from the last one down.
    return _of_table("LCMScheduler", schedule, prediction, original_inference_steps=len(rows))


def ddim_scheduler(schedule: VP, prediction: Prediction) -> Any:
    """diffusers' DDIM with eta = 0, from the last row down in even steps."""
    return _of_table("DDIMScheduler", schedule, prediction, timestep_spacing="trailing")


def _of_table(name: str, schedule: VP, prediction: Prediction, **own: Any) -> Any:
    """A scheduler of diffusers of this name with a table of noise levels."""
    import diffusers  # noqa: PLC0415

    kind, table = getattr(diffusers, name), schedule.alphas_cumprod.cpu()
    # alphas_cumprod is the running product of 1 - beta: its ratios give the betas back.
    betas = 1 - table / torch.cat([table.new_ones(1), table[:-1]])
    shared = own | {
        "num_train_timesteps": len(table),
        "prediction_type": PREDICTION_TYPES[prediction],
        "clip_sample": False,  # latents go beyond [-1, 1]
        "steps_offset": 1,  # nothing reads it, but pipelines warn of any other
    }
    # Stable Diffusion's schedule is written by name and two numbers, as in its own files; any
    # other VP schedule as a list of a thousand betas.
    first, last = (round(float(beta), 12) for beta in (betas[0], betas[-1]))
    found = kind(beta_schedule="scaled_linear", beta_start=first, beta_end=last, **shared)
    same = torch.allclose(found.alphas_cumprod.double(), table, rtol=1e-4, atol=0)
    return found if same else kind(trained_betas=betas.tolist(), **shared)
