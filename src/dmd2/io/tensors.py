"""safetensors files, written atomically, and loaded strictly into a module.

Published weights may be spread over several files, with an index (.json) in the place of one.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dmd2.io.files import read_json
from dmd2.io.progress import bytes_bar, hashed, num_bytes_of, writing
from dmd2.io.replace import folder_beside, replacing, unused_name


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors that share no memory, and metadata, to `path`, atomically.

    Parent folders are made. Raises OSError where the file cannot be written.
    """
    # safetensors refuses views with gaps, e.g. channels-last weights.
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        # The library writes beside the name it is given, at one that nobody would sweep.
        with replacing(path) as partial, folder_beside(partial) as folder:
            written = folder / "tensors"
            with writing(written, path.name, sum(x.nbytes for x in held.values())):
                save_file(held, written, metadata)
            let_others_read(written)
            written.replace(partial)
    except SafetensorError as error:
        # A full disk reaches us as an error of the library's own.
        raise OSError(f"{path} could not be written: {error}") from error


def let_others_read(path: Path) -> None:
    """Give a file the permissions that a new file gets here; safetensors lets its user alone read.

    A cache's teachers and a run's student are often another user's, too.
    """
    # The umask cannot be asked for without changing it for all threads, so a new file says it.
    new = unused_name(path)
    new.touch()
    path.chmod(new.stat().st_mode)
    new.unlink()


def shards_of(index: Path) -> list[str]:
    """The names of the files, beside it, over which an index says that tensors are spread.

    Raises ValueError where the index is damaged or names a file elsewhere.
    """
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index} is damaged: it has no weight_map")
    names = {name if isinstance(name, str) else "" for name in places.values()}
    # A name with a folder in it could be any file of this machine.
    if wrong := sorted(name for name in names if not name or Path(name).name != name):
        raise ValueError(f"{index} is refused: a shard's name is no plain one: {wrong[0]!r}")
    return sorted(names)


def files_of(path: Path) -> list[Path]:
    """The files in which the tensors of `path` lie: itself, or the shards of an index (.json)."""
    return [path.with_name(name) for name in shards_of(path)] if path.suffix == ".json" else [path]


def weights_sha256(path: Path) -> str:
    """SHA-256 of a file of weights; of an index that of its shards' hashes."""
    if path.suffix != ".json":
        return hashed(path)
    return hashlib.sha256("".join(map(hashed, files_of(path))).encode()).hexdigest()


def names_in(path: Path) -> list[str]:
    """The names of the tensors of a file or index; raises ValueError where it is damaged."""
    names = list[str]()
    for part in files_of(path):
        with _opened(part) as file:
            names.extend(file.keys())
    return names


def read_metadata(path: Path) -> dict[str, str]:
    """A file's metadata; empty where there is no file, or no metadata in it.

    Raises ValueError where it is damaged.
    """
    if not path.is_file() or path.suffix == ".json":
        return {}
    with _opened(path) as file:
        return file.metadata() or {}  # the library gives None for none


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of the shards of an index, in host memory.

    Raises FileNotFoundError where there is none, and ValueError where it is damaged.
    """
    tensors, parts = dict[str, Tensor](), files_of(path)
    with bytes_bar(f"reading {path.name}", num_bytes_of(parts)) as bar:
        for part in parts:
            if not part.is_file():
                raise FileNotFoundError(f"there are no weights at {part}")
            with _opened(part) as file:
                for name in file.keys():  # noqa: SIM118  # of no mapping
                    tensors[name] = file.get_tensor(name)
                    bar.update(tensors[name].nbytes)
    return tensors


def first_difference(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> tuple[str, str, str] | None:
    """The first name of either whose shapes differ, with both shapes in words; None if none does.

    A shape is "none" where the name is lacking.
    """
    for name in sorted(own.keys() | given.keys()):
        ours, theirs = (str(tuple(x[name].shape)) if name in x else "none" for x in (own, given))
        if ours != theirs:
            return name, ours, theirs
    return None


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a file into a module; every name and shape must match.

    Raises FileNotFoundError where there is no file, and ValueError where it is damaged or is of
    another network.
    """
    tensors = read_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        # The first line names the class; the second has the first name or shape that differs, and
        # hundreds may follow.
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(
            f"{path} holds another network's weights: "
            f"{kind_of(list(tensors)) or shorten(first, 200)}"
        ) from error


def kind_of(names: Sequence[str]) -> str | None:
    """What a file of tensors with these names is, and what to do with it; None if nothing known."""
    if any(".lora_down." in name for name in names):
        return (
            "it is a LoRA as kohya's trainer writes them, and a LoRA is no network by itself; to "
            "merge it into the teacher type teacher.loras=[{source:FILE}]"
        )
    if any(".lora_A." in name for name in names):
        return "it is the LoRA of a student; choose the lora=... of its run"
    if any(name.startswith(("model.diffusion_model.", "first_stage_model.")) for name in names):
        return (
            "it is a whole model in one file, as they are shared; type teacher.source=FILE "
            "teacher.configs=DIR, a pipeline of its kind"
        )
    return None


def reason_of(error: Exception) -> str:
    """Why torch refuses a file or cannot write one, in a line.

    torch hides the system's words about a disk, and adds advice to run a refused file after all.
    """
    text = str(error.__context__ or error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it calls {found[1]}"
    is_advice = "weights_only" in text or "safe_globals" in text
    return "it is damaged, or more than tensors" if is_advice else text.partition("\n")[0]
