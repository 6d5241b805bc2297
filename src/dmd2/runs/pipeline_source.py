"""A teacher's `source` that is one file: made a pipeline in the cache once, and read from there."""

from pathlib import Path
from typing import Any

from dmd2.config.check import Config
from dmd2.io.files import key_of, locked, refused
from dmd2.io.progress import hashed
from dmd2.io.replace import replacing
from dmd2.nets.single_file import convert

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
MAX_READ_BYTES = 2**24
"""A file of a pipeline that is longer counts by name and size, not by its bytes."""

SAID = (".json", ".txt", ".model")
"""Suffixes of files that say what a pipeline is: configs, vocabularies."""
PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "unet", "vae")
"""How the names of its folders begin; what else lies beside them says nothing of it."""


def files_said(source: str | None) -> dict[str, str]:
    """A hash of each file, by name, in which a pipeline's folder says what it is beside weights.

    Empty without a source, and of a name on the hub.
    """
    folder = Path(source or "")
    if source is None or not folder.is_dir():
        return {}
    # Nothing else is walked: samples and runs may lie in the folder, too.
    parts = (part for part in folder.iterdir() if part.name.startswith(PARTS))
    files = [folder / "model_index.json", *(path for part in parts for path in part.rglob("*"))]
    names = {path.relative_to(folder).as_posix(): path for path in sorted(files)}
    return {name: _digest(path) for name, path in names.items() if is_said(name) and path.is_file()}


def is_said(name: str) -> bool:
    """Whether a file of a pipeline's folder, by its path there, says what the pipeline is."""
    part, _, rest = name.partition("/")
    is_own = name == "model_index.json" or (bool(rest) and part.startswith(PARTS))
    # The index of a variant's shards is no other pipeline.
    return is_own and name.endswith(SAID) and ".index." not in name


def with_pipeline(config: Config) -> Config:
    """The same config with a folder in the place of a `teacher.source` that is one file.

    The file is converted once, into `cache/pipelines/`; with `teacher.configs`, the pipeline that
    lends it what it lacks; then `teacher.file` is the file's name. Any other config is returned as
    it is.

    Raises as `single_file`, and ValueError where the file is of another layout than the configs.
    """
    path, section = single_file(config), config["teacher"]
    if path is None:
        return config
    folder = _converted(path, section["configs"], Path(config["paths"]["cache"]) / "pipelines")
    found: Config = _replaced(config, section["source"], str(folder))
    found["teacher"] |= {"configs": None, "file": path.name}
    return found


def with_lender(config: Config) -> Config:
    """The same config with `teacher.configs` in the place of a `teacher.source` that is one file:
    what it describes is read from there, and nothing is converted.

    Raises as `single_file`.
    """
    section = config["teacher"]
    if single_file(config) is None:
        return config
    found: Config = _replaced(config, section["source"], section["configs"])
    return found


def single_file(config: Config) -> Path | None:
    """The file that a `teacher.source` is; None where it is a pipeline, or there is none.

    Raises FileNotFoundError where the file is not there, ValueError where it is a pickle, or has no
    configs, or configs are for no file.
    """
    section = config["teacher"]
    source, configs = section.get("source"), section.get("configs")
    if source is None or not _is_file(Path(source)):
        if configs is not None:
            raise ValueError(
                f"teacher.configs={configs} is for a model in one file, and teacher.source="
                f"{source} is none; type teacher.configs=null"
            )
        return None
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; name it: teacher.source=FILE")
    if path.suffix in PICKLES:
        raise refused(
            path,
            "it is a pickle, a program; take the same model's .safetensors. Published EDM "
            "and DMD2 pickles are read by: dmd2 import source=FILE out=FILE.safetensors",
        )
    if configs is None:
        raise ValueError(
            f"{path} is one file, without configs and tokenizers; name a pipeline of its kind that "
            "lends them, a folder or a hub name: teacher.configs=DIR"
        )
    return path


def _is_file(path: Path) -> bool:
    return path.is_file() or path.suffix in (".safetensors", *PICKLES)


def _converted(path: Path, configs: str, cache: Path) -> Path:
    """The folder in the cache with the file as a pipeline, made where there is none."""
    folder = cache / key_of(hashed(path), _identity(configs))
    # Other runs that want the same file wait here, and find it.
    with locked(folder):
        if not folder.is_dir():
            with replacing(folder) as partial:
                line = convert(path, configs, partial)
            print(f"{folder}: {line}")
    return folder


def _identity(configs: str) -> Any:
    """What a pipeline that lends its configs is known by: a folder by its files, or its name."""
    folder = Path(configs)
    if not folder.is_dir():
        return configs
    return [
        [str(path.relative_to(folder)), path.stat().st_size, _digest(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def _digest(path: Path) -> str:
    is_long = path.stat().st_size > MAX_READ_BYTES
    return "" if is_long else hashed(path)


def _replaced(node: Any, source: str, folder: str) -> Any:
    """Plain containers with another value wherever a key `source` has the value `source`.

    All parts of a teacher, and data on its latents, name its pipeline so.
    """
    if isinstance(node, dict):
        return {
            key: folder if key == "source" and value == source else _replaced(value, source, folder)
            for key, value in node.items()
        }
    return [_replaced(x, source, folder) for x in node] if isinstance(node, list) else node
