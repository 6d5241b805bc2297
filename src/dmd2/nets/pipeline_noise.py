"""The noise levels and the prediction that a published pipeline's scheduler file describes.

Every key that changes them is used, or refused by its name.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path

import torch

from dmd2.diffusion.denoiser import Prediction
from dmd2.diffusion.schedules import VP, Flow, NoiseSchedule
from dmd2.io.hub import (
    COUNT,
    NUMBER,
    POSITIVE,
    PREDICTIONS,
    SHARE,
    SWITCH,
    WORD,
    Kind,
    check_keys,
    config_in,
    list_of,
    named_in_errors,
    or_null,
)
from dmd2.nets.flow_shift import dynamic_shift
from dmd2.nets.pipeline_families import family_of

FLOWS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)
"""Schedulers of rectified flows."""
TABLES = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers of a table of betas. How they step through it is the sampler's matter, not ours."""
DECISIVE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "use_flow_sigmas",
    "flow_shift",
    "shift",
    "use_dynamic_shifting",
    "invert_sigmas",
)
"""Keys that say which noise a network was trained on, or what it predicts."""
UNSUPPORTED = {
    "invert_sigmas": (None, False),
    "scale_factors": (None,),  # one network a resolution of its own
    "timestep_type": (None, "discrete"),  # else the network is told the logarithm of sigma
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
"""Keys that change what a network reads or makes, and the values at which they do not."""
ALWAYS_READ: dict[str, Kind] = {
    "num_train_timesteps": COUNT,
    "rescale_betas_zero_snr": or_null(SWITCH),
    "use_flow_sigmas": or_null(SWITCH),
    "use_dynamic_shifting": or_null(SWITCH),
}
"""Keys that are read of every scheduler, and their values."""
OF_TABLES: dict[str, Kind] = {
    "beta_start": SHARE,
    "beta_end": SHARE,
    "beta_schedule": WORD,
    "trained_betas": or_null(list_of(SHARE)),
}
OF_DYNAMIC_SHIFTS: dict[str, Kind] = {
    "base_shift": NUMBER,
    "max_shift": NUMBER,
    "base_image_seq_len": COUNT,
    "max_image_seq_len": COUNT,
    "time_shift_type": ("exponential or linear", lambda x: x in ("exponential", "linear")),
}
LAST_ALPHA2 = 2.0**-24
"""The most that alpha^2 may be in a last row without signal, as in diffusers' Euler scheduler: not
0, so that sigma / alpha is finite."""


def noise_of(source: str | Path, num_tokens: int | None = None) -> tuple[NoiseSchedule, Prediction]:
    """The noise that a pipeline's network was trained on, and what the network predicts.

    num_tokens  Of an image, where a shift may depend on them.

    Raises FileNotFoundError without a scheduler's file, ValueError for one that nothing here knows,
    and for a value of no sense.
    """
    import diffusers  # noqa: PLC0415

    config = config_in(source, "scheduler/scheduler_config.json")
    name = config.get("_class_name")
    if name not in (*FLOWS, *TABLES):
        raise ValueError(
            f"the scheduler of {source} is {name!r}, of which nothing here knows the noise levels; "
            "known are those of betas (DDIM, Euler, ...) and FlowMatchEulerDiscreteScheduler"
        )
    kind = getattr(diffusers, name)
    parameters = _parameters(kind)
    if lost := [key for key in DECISIVE if config.get(key) and key not in parameters]:
        raise ValueError(
            f"the scheduler of {source} says {lost[0]}={config[lost[0]]}, which {name} does not "
            "read; mend scheduler/scheduler_config.json"
        )
    # Of other schedulers' keys files are full; one that none of them has may mean anything.
    known = {key for other in (*FLOWS, *TABLES) for key in _parameters(getattr(diffusers, other))}
    for key, value in config.items():
        if value and not key.startswith("_") and key not in known:
            raise ValueError(
                f"the scheduler of {source} says {key}={value}, which nothing here knows; take it "
                "out of scheduler/scheduler_config.json if it changes no noise"
            )
    said = {key: p.default for key, p in parameters.items()} | config
    here = f"the scheduler of {source}"
    check_keys(here, said, ALWAYS_READ)
    is_dynamic = said.get("use_dynamic_shifting")
    if is_dynamic and (name not in FLOWS or num_tokens is None):
        raise ValueError(
            f"the scheduler of {source} has use_dynamic_shifting, a shift that depends on the "
            "image's tokens, which is supported for transformers of flows alone"
        )
    for key, harmless in UNSUPPORTED.items():
        if said.get(key) not in harmless:
            raise ValueError(
                f"the scheduler of {source} has {key}={said[key]}, which is not supported here"
            )
    predicted = "flow_prediction" if name in FLOWS else said.get("prediction_type", "epsilon")
    if not isinstance(predicted, str) or predicted not in PREDICTIONS:
        raise ValueError(
            f"{source} predicts {predicted}; choose one that predicts {', '.join(PREDICTIONS)}"
        )
    if (predicted == "flow_prediction") != bool(name in FLOWS or said.get("use_flow_sigmas")):
        raise ValueError(
            f"the scheduler of {source} has prediction_type={predicted} and use_flow_sigmas="
            f"{said.get('use_flow_sigmas')}, which do not go together"
        )
    if said.get("rescale_betas_zero_snr") and predicted == "epsilon":
        raise ValueError(
            f"the scheduler of {source} has rescale_betas_zero_snr and predicts epsilon: in its "
            "last row there is no signal, from which nothing can be predicted"
        )
    if predicted == "flow_prediction":
        key = "shift" if name in FLOWS else "flow_shift"
        check_keys(here, said, {key: POSITIVE} | (OF_DYNAMIC_SHIFTS if is_dynamic else {}))
    else:
        check_keys(here, said, OF_TABLES)
    # A schedule of betas of another name, a table that rises.
    # On the CPU also where a network takes no memory (meta): the table's numbers are read.
    with named_in_errors(source, "scheduler"), torch.device("cpu"):
        if predicted == "flow_prediction":
            shift = said[key]
            if is_dynamic and num_tokens is not None:
                shift = dynamic_shift(said, family_of(source).mu(said, num_tokens))
            return Flow(float(shift), int(said["num_train_timesteps"])), "flow"
        table = kind.from_config(config).alphas_cumprod.double()
        if said.get("rescale_betas_zero_snr"):
            table[-1] = min(LAST_ALPHA2, float(table[-2]) / 2)
        return VP(table), PREDICTIONS[predicted]


def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind).parameters
