"""Layout: splits, row order and class labels of a source, from the names of its files.

No image is opened. Rows are in the order of the names, whatever the order in the archive, so the
same images packed in two ways are the same data.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from dmd2.data.preparation.archives import members
from dmd2.data.preparation.class_folders import labels_of_folders
from dmd2.data.preparation.passed_over import PassedOver, pass_over, pass_over_file
from dmd2.data.preparation.picture import is_image
from dmd2.data.split import stratified
from dmd2.io.files import parse_json

SPLITS = ("train", "test", "val")  # folders that may stand at the top level
LABELS = "dataset.json"
MAX_CLASSES = 1_000_000  # The list of their names is in memory; ImageNet's largest has 21,841.


@dataclass(frozen=True)
class Layout:
    """Which images make the rows of each split, and their classes.

    train        Names of the images of the train split, in row order.
    test         The same for the test split.
    labels       Class of each name; 0 without classes.
    class_names  Names of the classes; [] without classes.
    passed_over  What of the source has no row.
    """

    # asdict() of it is in the hash of unfinished work: other names would not go on with that.
    train: list[str]
    test: list[str]
    labels: dict[str, int]
    class_names: list[str]
    passed_over: PassedOver = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, list[str]]:
        """Names in row order of each split."""
        return {"train": self.train, "test": self.test}


def lay_out(source: Path, test_fraction: float) -> Layout:
    """The layout of a source by its dataset.json (EDM's format), or by its folders.

    Where the top level is `train/` and `test/` (or `val/`, which is ignored beside `test/`), in
    small letters or capitals, these are the splits; they may lie in one common folder. Otherwise
    `test_fraction` of each class is the test split. Raises ValueError where there are no images, or
    their labels make no sense.
    """
    passed: PassedOver = {}
    names, listed = _scan(source, passed)
    paths = _unwrapped({name: PurePosixPath(name) for name in names}, source)
    train, test = names, []
    if _has_splits(paths, source):
        # val/ alone is the test split, as of ImageNet; beside test/ its images get no row.
        split = {name: path.parts[0].lower() for name, path in paths.items()}
        test_folder = "test" if "test" in split.values() else "val"
        train = [name for name in names if split[name] == "train"]
        for name in names:
            if split[name] not in ("train", test_folder):
                pass_over(passed, f"images of {paths[name].parts[0]}/ beside test/", name)
        test = [name for name in names if split[name] == test_folder]
        paths = {name: paths[name].relative_to(paths[name].parts[0]) for name in train + test}
    if test and test_fraction:
        raise ValueError(
            f"{source} has its own test split, got {test_fraction=}; set data.test_fraction=0"
        )
    # dataset.json goes before folders: in EDM's zips these only divide the files by number.
    if listed is None:
        labels, class_names = labels_of_folders(paths, source)
        _require_in_train(train, test, labels, class_names, source)
    else:
        labels, class_names = _labels_of_json(listed, train + test, source, passed)
    if not test:
        # One image at least is left to train on.
        classes = np.array([labels[name] for name in train])
        kept, held_out = stratified(classes, min(round(test_fraction * len(train)), len(train) - 1))
        train, test = [train[i] for i in kept], [train[i] for i in held_out]
    return Layout(train, test, labels, class_names, passed)


def _require_in_train(
    train: list[str], test: list[str], labels: dict[str, int], class_names: list[str], source: Path
) -> None:
    """Raise ValueError where a class folder is of the test split alone: it would take a label that
    the classes to train on count themselves by.
    """
    if alone := sorted({labels[name] for name in test} - {labels[name] for name in train}):
        raise ValueError(
            f"{source} has the class {class_names[alone[0]]} to test and not to train on; take it "
            "out, or add it to the folder to train on"
        )


def _scan(source: Path, passed: PassedOver) -> tuple[list[str], bytes | None]:
    """Sorted names of the images, and the text of dataset.json."""
    names, listed = [], None
    for member in members(source, passed):
        path = PurePosixPath(member.name)
        if path.name.lower() == LABELS and member.name != LABELS:
            raise ValueError(
                f"{member.name} in {source} would not be read: labels are in {LABELS}, in small "
                "letters, at the top; move it there, or rename it"
            )
        if member.name == LABELS:
            if listed is not None:  # a tar or zip may hold a name twice
                raise ValueError(f"{source} holds {LABELS} twice; pack it again with one")
            listed = member.read()
        elif is_image(member.name):
            names.append(member.name)
        else:
            pass_over_file(passed, member.name)
    return in_order(names, source), listed


def in_order(names: list[str], source: Path) -> list[str]:
    """The images' names sorted; raises ValueError where there are none, or one comes twice."""
    if not names:
        raise ValueError(
            f"no images in {source}; expected <class>/<image> or train/<class>/<image>"
        )
    name, times = Counter(names).most_common(1)[0]
    # Zips and tars may hold a name twice. It would have two rows and one label.
    if times > 1:
        raise ValueError(
            f"{source} holds {name} {times} times; pack it again with every image once"
        )
    return sorted(names)


def _has_splits(paths: dict[str, PurePosixPath], source: Path) -> bool:
    # With any other folder beside it, train/ is a class of that name.
    tops = {path.parts[0] for path in paths.values()}
    splits = {top.lower() for top in tops}
    if "train" not in splits or not splits <= set(SPLITS):
        return False
    if len(splits) < len(tops):
        raise ValueError(
            f"of the folders {', '.join(sorted(tops))} in {source} two are the same split, whether "
            "in small letters or capitals; merge or rename them"
        )
    return True


def _unwrapped(paths: dict[str, PurePosixPath], source: Path) -> dict[str, PurePosixPath]:
    """The paths without the common folder around train/ and test/, where there is one."""
    if len({path.parts[0] for path in paths.values()}) > 1 or any(
        len(p.parts) < 2 for p in paths.values()
    ):
        return paths
    # Archives are often packed with their own folder, e.g. cifar10/train/...
    inner = {name: path.relative_to(path.parts[0]) for name, path in paths.items()}
    return inner if _has_splits(inner, source) else paths


def _labels_of_json(
    text: bytes, names: list[str], source: Path, passed: PassedOver
) -> tuple[dict[str, int], list[str]]:
    """Classes of EDM's {"labels": [["00000/img00000000.png", 6], ...]}; none for null labels."""
    where = f"{LABELS} in {source}"
    try:
        listed = parse_json(text, where)["labels"]
        labels = {} if listed is None else dict(listed)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{where} must read {{"labels": [["<image>", 0], ...]}} or null labels ({error})'
        ) from error
    if listed is None:
        return dict.fromkeys(names, 0), []
    if len(labels) < len(listed):
        raise ValueError(f"{where} lists an image twice; list every image once")
    for name in names:
        if name not in labels:
            raise ValueError(f"{where} gives no label for {name}; list every image")
        # By type: isinstance would take true for the class 1.
        if type(labels[name]) is not int or not 0 <= labels[name] < MAX_CLASSES:
            raise ValueError(
                f"{where} gives {name} the label {labels[name]!r:.40}; labels are integers from 0 "
                f"to {MAX_CLASSES - 1:,}"
            )
    for name in sorted(map(str, labels.keys() - {*names})):
        pass_over(passed, f"names in {LABELS} of no image with a row", name)
    # Up to the largest label, also where the images show only some classes.
    num_classes = 1 + max(labels[name] for name in names)
    return {name: labels[name] for name in names}, [str(i) for i in range(num_classes)]
