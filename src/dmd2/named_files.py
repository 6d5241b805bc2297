"""The files that a config names: a missing one is answered with where it comes from, before anything is built."""

from pathlib import Path

from dmd2.config import Config


def teacher_file(config: Config) -> Path | None:
    """The file that `teacher.weights` names, None where the teacher is trained here.

    Raises FileNotFoundError that says where a published teacher comes from, ValueError where there is none to have.
    """
    section = config["teacher"]
    if section["weights"] is None:
        if section["pretrain"] is None:
            raise ValueError("this teacher is not trained here; name its file: teacher.weights=FILE.safetensors")
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
