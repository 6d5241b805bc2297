"""Layout of captioned images: a text or JSON file beside each (webdataset), or a metadata.jsonl
(Hugging Face's imagefolder).
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dmd2.data.captions import caption_of
from dmd2.data.preparation.archives import members
from dmd2.data.preparation.layout import Layout, in_order
from dmd2.data.preparation.passed_over import PassedOver, pass_over, pass_over_file
from dmd2.data.preparation.picture import is_image
from dmd2.data.tables import text_of
from dmd2.io.files import parse_json

METADATA = "metadata.jsonl"
SETTING = "recipe.caption"


def captioned(source: Path, column: str) -> Layout:
    """All images of `source` as train split, each a class of its own, named by its caption.

    The caption of KEY.jpg is the text of KEY.txt, or else the entry `column` of KEY.json, or else
    that of the row of metadata.jsonl with the image's "file_name". Raises ValueError where there
    are no images, an image has no caption, one has two rows or files of one kind, or a caption is
    no text. What is passed over for another caption is counted.
    """
    names, passed = list[str](), PassedOver()
    # Of a .txt and a .json by the key that they share with the image, of a row by its whole name.
    texts, beside, listed = dict[str, str](), dict[str, str](), dict[str, str]()
    for member in members(source, passed):
        path, where = PurePosixPath(member.name), f"{member.name} in {source}"
        if is_image(member.name):
            names.append(member.name)
        elif path.name == METADATA:
            for name, caption in _rows(member.read(), path.parent, column, where):
                _add(listed, name, caption, where)
        elif path.suffix.lower() == ".txt":
            _add(texts, _key(path), text_of(member.read(), where), where)
        elif path.suffix.lower() == ".json":
            row = parse_json(member.read(), where)
            # Other JSON files are no error: webdataset has some about a whole tar.
            if isinstance(row, dict) and column in row:
                _add(beside, _key(path), caption_of(row, column, where, SETTING), where)
            else:
                pass_over_file(passed, member.name)
        else:
            pass_over_file(passed, member.name)
    names = in_order(names, source)
    found, unused = dict[str, list[str]](), {*texts, *beside, *listed}
    for name in names:
        key = _key(PurePosixPath(name))
        # A .txt is the caption and nothing else, so it goes before the others.
        kinds = ((texts, key), (beside, key), (listed, name))
        found[name] = [captions[of] for captions, of in kinds if of in captions]
        unused -= {key, name}
    if bare := [name for name in names if not found[name]]:
        raise ValueError(
            f"{len(bare)} of {len(names)} images in {source} have no caption, e.g. {bare[0]}; put "
            f'a .txt beside each, or {METADATA} with "file_name" and "{column}"'
        )
    for name, captions in found.items():
        if len(set(captions)) > 1:
            pass_over(passed, "other captions of an image with several", name)
    for name in sorted(unused):
        pass_over(passed, "captions of no image", name)
    # Captions are not merged where two images share one: row i has caption i.
    captions = [found[name][0] for name in names]
    return Layout(names, [], {name: i for i, name in enumerate(names)}, captions, passed)


def _add(captions: dict[str, str], name: str, caption: str, where: str) -> None:
    """Add the caption of one name; raises ValueError where it has one of this kind already."""
    if name in captions:
        raise ValueError(f"{name} has two captions, the second in {where}; leave one")
    captions[name] = caption


def _rows(data: bytes, folder: PurePosixPath, column: str, where: str) -> Iterator[tuple[str, str]]:
    """Name and caption of each image that the metadata.jsonl in `folder` lists."""
    for i, line in enumerate(data.splitlines(), 1):
        if line.strip():
            row = parse_json(line, at := f"line {i} of {where}")
            name = row.get("file_name") if isinstance(row, dict) else None
            if not isinstance(name, str) or not name:
                raise ValueError(f'{at} has no text "file_name", which names the image')
            # File names count from the folder that the list lies in, and Windows has other slashes.
            image = folder / name.replace("\\", "/")
            yield str(image), caption_of(row, column, at, SETTING)


def _key(path: PurePosixPath) -> str:
    """What an image and its caption share: the name without its last suffix."""
    # webdataset ends a key at the first dot; here names may hold dots, e.g. v1.2.jpg.
    return str(path.with_suffix(""))
