"""The text encoders in a file that has a whole model."""

from pathlib import Path
from typing import Any

from torch import Tensor

from dmd2.io.hub import config_in, file_of
from dmd2.io.shown import in_one_line

CLIPS = {
    "text_encoder": [
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
        "cond_stage_model.model.token_embedding.weight",
        "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight",
        "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight",
    ],
    "text_encoder_2": [
        "conditioner.embedders.1.model.positional_embedding",
        "text_encoders.clip_g.transformer.text_model.embeddings.position_embedding.weight",
    ],
}
"""Names of which a file with a pipeline's encoder has one."""


def text_encoders(path: Path, tensors: dict[str, Tensor], configs: str) -> dict[str, Any]:
    """The CLIP encoders in the file of a Stable Diffusion; none where it has none.

    Raises ValueError where one is another than the pipeline `configs` has.
    """
    import transformers  # noqa: PLC0415
    from diffusers.loaders import single_file_utils as tables  # noqa: PLC0415

    found = {}
    for name, kind in _clips(configs):
        folder = str(file_of(configs, f"{name}/config.json").parent.parent)
        if not any(x in tensors for x in CLIPS[name]):
            continue
        try:
            found[name] = tables.create_diffusers_clip_model_from_ldm(
                getattr(transformers, kind), tensors, name, folder, local_files_only=True
            )
            if any(weight.is_meta for weight in found[name].parameters()):
                raise ValueError("some of its weights are lacking")
        except (KeyError, ValueError, RuntimeError) as error:
            words = in_one_line(error)[:200]
            raise ValueError(
                f"the {name} in {path} is another than that of {configs}: {words}"
            ) from error
    return found


def _clips(configs: str) -> list[tuple[str, str]]:
    """The CLIP encoders of a pipeline, with their classes, as its index says."""
    index = config_in(configs, "model_index.json")
    kinds = ("CLIPTextModel", "CLIPTextModelWithProjection")
    said = [(name, index.get(name, [None, None])[1]) for name in CLIPS]
    return [(name, kind) for name, kind in said if kind in kinds]
