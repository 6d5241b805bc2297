"""From the names of a source's files to splits, rows and classes; no image is opened.

Rows are in the order of the names, whatever the order in the archive, so that the same images
packed in two ways are the same data.
"""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dmd2.data.preparation.archives import members
from dmd2.data.split import stratified

SPLITS = ("train", "test", "val")


@dataclass(frozen=True)
class Layout:
    """Names of the train and of the test images in row order, class of each name, names of the
    classes.

    Without classes every label is 0 and `class_names` is [].
    """

    train: list[str]
    test: list[str]
    labels: dict[str, int]
    class_names: list[str]

    @property
    def splits(self) -> dict[str, list[str]]:
        """Names in row order of each split."""
        return {"train": self.train, "test": self.test}


def lay_out(source: Path, test_fraction: float) -> Layout:
    """Lay out the images of `source`, by its dataset.json (EDM's format) or its folders.

    Where the top level is `train/` and `test/` (or `val/`, which beside `test/` is left alone),
    these are
    the splits; one folder around them is looked through. Otherwise `test_fraction` of each class is
    the
    test split. Raises ValueError where there are no images, or their labels make no sense.
    """
    names, listed = _scan(source)
    paths = _unwrapped({name: PurePosixPath(name) for name in names})
    train, test = names, []
    if _has_splits(paths):
        test_folder = "test" if any(path.parts[0] == "test" for path in paths.values()) else "val"
        train = [name for name in names if paths[name].parts[0] == "train"]
        test = [name for name in names if paths[name].parts[0] == test_folder]
        paths = {name: paths[name].relative_to(paths[name].parts[0]) for name in train + test}
    if test and test_fraction:
        raise ValueError(
            f"{source} has its own test split, got {test_fraction=}; set data.test_fraction=0"
        )
    if listed is None:
        labels, class_names = _labels_of_folders(paths, source)
    else:
        labels, class_names = _labels_of_json(listed, train + test, source)
    if not test:
        classes = np.array([labels[name] for name in train])
        kept, held_out = stratified(classes, min(round(test_fraction * len(train)), len(train) - 1))
        train, test = [train[i] for i in kept], [train[i] for i in held_out]
    return Layout(train, test, labels, class_names)


def _scan(source: Path) -> tuple[list[str], bytes | None]:
    """Sorted names of the images, and the text of dataset.json."""
    names, listed = [], None
    for member in members(source):
        if member.name == "dataset.json":
            listed = member.read()
        elif is_image(member.name):
            names.append(member.name)
    return in_order(names, source), listed


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image, and not a hidden one."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in _suffixes() and not hidden


@cache
def _suffixes() -> frozenset[str]:
    Image.init()
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN
    )


def in_order(names: list[str], source: Path) -> list[str]:
    """The images' names sorted; raises ValueError where there are none, or one comes twice."""
    if not names:
        raise ValueError(
            f"no images in {source}; expected <class>/<image> or train/<class>/<image>"
        )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"{source} holds {name} {times} times; pack it again with every image once"
        )
    return sorted(names)


def _has_splits(paths: dict[str, PurePosixPath]) -> bool:
    tops = {path.parts[0] for path in paths.values()}
    return "train" in tops and tops <= set(SPLITS)


def _unwrapped(paths: dict[str, PurePosixPath]) -> dict[str, PurePosixPath]:
    """Without the one folder around train/ and test/, where there is one."""
    if len({path.parts[0] for path in paths.values()}) > 1 or any(
        len(p.parts) < 2 for p in paths.values()
    ):
        return paths
    inner = {name: path.relative_to(path.parts[0]) for name, path in paths.items()}
    return inner if _has_splits(inner) else paths


def _labels_of_folders(
    paths: dict[str, PurePosixPath], source: Path
) -> tuple[dict[str, int], list[str]]:
    """A class for each first folder, in the order of their names; none where the images lie in no
    folder.
    """
    folders = {path.parts[0] for path in paths.values() if len(path.parts) > 1}
    if not folders:
        return dict.fromkeys(paths, 0), []
    for name, path in paths.items():
        if len(path.parts) == 1:
            raise ValueError(
                f"{name} in {source} lies in no class folder, others do; move it into one"
            )
    class_names = sorted(folders)
    index = {folder: i for i, folder in enumerate(class_names)}
    return {name: index[path.parts[0]] for name, path in paths.items()}, class_names


def _labels_of_json(
    text: bytes, names: list[str], source: Path
) -> tuple[dict[str, int], list[str]]:
    """Classes of EDM's {"labels": [["00000/img00000000.png", 6], ...]}; none for {"labels":
    null}.
    """
    where = f"dataset.json in {source}"
    try:
        listed = json.loads(text)["labels"]
        labels = None if listed is None else dict(listed)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{where} must read {{"labels": [["<image>", 0], ...]}} or null labels'
        ) from error
    if labels is None:
        return dict.fromkeys(names, 0), []
    for name in names:
        if name not in labels:
            raise ValueError(f"{where} gives no label for {name}; list every image")
        # bool is an int to Python, but not to EDM.
        if type(labels[name]) is not int or labels[name] < 0:
            raise ValueError(
                f"{where} gives {name} the label {labels[name]!r}; labels are integers from 0 on"
            )
    num_classes = 1 + max(labels[name] for name in names)
    return {name: labels[name] for name in names}, [str(i) for i in range(num_classes)]
