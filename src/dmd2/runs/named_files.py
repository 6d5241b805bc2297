"""The files that a config names: a missing one is answered with where it comes from, before
anything is built.
"""

from pathlib import Path

from dmd2.config.check import Config
from dmd2.io.hub import check_prediction, weights_of


def teacher_file(config: Config) -> Path | None:
    """The file that `teacher.weights` names, or that of the pipeline `teacher.source`; None where
    it is trained here.

    Raises FileNotFoundError that says where a published teacher comes from, ValueError where there
    is none to have,
    or the pipeline's network predicts something else.
    """
    section = config["teacher"]
    if (source := section.get("source")) is not None:
        if "prediction" in section["denoiser"]:
            check_prediction(source, section["denoiser"]["prediction"])
        if section["weights"] is None:
            return weights_of(source, section["variant"])
    if section["weights"] is None:
        if section["pretrain"] is None:
            raise ValueError(
                "this teacher is not trained here; name its file: teacher.weights=FILE.safetensors"
            )
        return None
    path, url = Path(section["weights"]), section.get("url")
    if url is not None and not path.is_file():
        raise FileNotFoundError(
            f"there are no weights at {path}; download {url} and type: "
            f"dmd2 import source={url.rpartition('/')[2]} out={path}"
        )
    return path


def starting_files(config: Config) -> None:
    """Raise FileNotFoundError where a file of weights to start from is not there."""
    for key in ("weights", "critic_weights"):
        if config[key] is not None and not Path(config[key]).is_file():
            raise FileNotFoundError(
                f"there are no weights at {config[key]}, where {key} looks; "
                f"train what they are of first, or type {key}=FILE.safetensors"
            )
