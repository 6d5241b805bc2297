"""Labels from class folders: numbered in the order of their names, in which 2 comes before 10."""

import re
import unicodedata
from collections.abc import Collection
from pathlib import Path, PurePosixPath

LABEL_DIGITS = 4  # Numbers of more digits are taken for names, e.g. WordNet's 01440764.


def labels_of_folders(
    paths: dict[str, PurePosixPath], source: Path
) -> tuple[dict[str, int], list[str]]:
    """A class for each top folder, in `natural` order; none where images lie in no folder.

    Raises ValueError where some images lie in a class folder and others do not, and where the
    folders are numbers that lack one or have one twice, or two look the same.
    """
    # Deeper folders do not count: a class may be divided into some.
    folders = {path.parts[0] for path in paths.values() if len(path.parts) > 1}
    if not folders:
        return dict.fromkeys(paths, 0), []
    for name, path in paths.items():
        if len(path.parts) == 1:
            raise ValueError(
                f"{name} in {source} lies in no class folder, others do; move it into one"
            )
    _require_every_number(folders, source)
    _require_distinct(folders, source)
    # Of names without numbers, and of numbers with as many digits, it is the order that EDM's
    # dataset_tool and torchvision's ImageFolder number by.
    class_names = sorted(folders, key=natural)
    index = {folder: i for i, folder in enumerate(class_names)}
    return {name: index[path.parts[0]] for name, path in paths.items()}, class_names


def natural(name: str) -> tuple[list[tuple[str, int, str]], str]:
    """A key that sorts names as people do: runs of digits in them by their value."""
    # The text at even places, a number at odd ones. A number is compared by its length first, and
    # not as an integer: Python refuses to read one of thousands of digits.
    parts = re.split(r"(\d+)", name)
    values = [_value(part) for part in parts[1::2]] + [""]
    key = [(text, len(value), value) for text, value in zip(parts[::2], values, strict=True)]
    return key, name  # the name itself decides between 1 and 01


def _value(digits: str) -> str:
    """Decimal digits of any script as 0 to 9, without zeros in front."""
    return "".join(str(unicodedata.decimal(digit)) for digit in digits).lstrip("0")


def _require_distinct(folders: Collection[str], source: Path) -> None:
    """Raise ValueError where two names look the same, or are one number: by mistake, one class."""
    seen = dict[str, str]()
    for folder in sorted(folders):
        shown = unicodedata.normalize("NFC", folder).strip()
        meant = f"number {_value(shown)}" if shown.isdecimal() else shown
        if (other := seen.setdefault(meant, folder)) != folder:
            raise ValueError(
                f"{source} has the class folders {other!a} and {folder!a}, which differ "
                "in blanks, zeros or the coding of a character alone; merge or rename them"
            )


def _require_every_number(folders: Collection[str], source: Path) -> None:
    """Raise ValueError for numbers with a gap: the labels behind it would all be shifted."""
    if not all(re.fullmatch(rf"\d{{1,{LABEL_DIGITS}}}", folder) for folder in folders):
        return
    numbers = sorted(map(int, folders))
    if numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
        missing = sorted({*range(numbers[0], numbers[-1])} - {*numbers})
        odd = f"none is {missing[0]}" if missing else "one number comes twice"
        raise ValueError(
            f"the class folders of {source} are the numbers {numbers[0]} to {numbers[-1]}, and "
            f"{odd}, so labels that count them would not be the numbers; complete them, or rename "
            "them to words, which are numbered in their order"
        )
