"""From the names of a source's files to captioned images: text beside each, as in webdataset, or a
metadata.jsonl.
"""

from pathlib import Path, PurePosixPath

from dmd2.data.captions import caption_of, parsed
from dmd2.data.preparation.archives import members
from dmd2.data.preparation.layout import Layout, in_order, is_image

METADATA = "metadata.jsonl"


def captioned(source: Path, column: str) -> Layout:
    """All images of `source` as train split, each its own "class", whose name is its caption.

    KEY.txt or KEY.json beside KEY.jpg has the caption, or a row of metadata.jsonl with the image's
    "file_name";
    `column` is its name in JSON. Raises ValueError where there are no images, or one has no
    caption.
    """
    names, texts = list[str](), dict[str, str]()
    for member in members(source):
        path, where = PurePosixPath(member.name), f"{member.name} in {source}"
        if is_image(member.name):
            names.append(member.name)
        elif path.name == METADATA:
            for i, line in enumerate(member.read().splitlines(), 1):
                row = parsed(line, f"line {i} of {where}")
                image = path.parent / caption_of(row, "file_name", f"line {i} of {where}")
                texts[_key(image)] = caption_of(row, column, f"line {i} of {where}")
        elif path.suffix == ".txt":
            texts[_key(path)] = member.read().decode().strip()
        elif path.suffix == ".json":
            row = parsed(member.read(), where)
            if isinstance(row, dict) and column in row:  # not what says something of a whole shard
                texts.setdefault(_key(path), caption_of(row, column, where))
    names = in_order(names, source)
    if bare := [name for name in names if _key(PurePosixPath(name)) not in texts]:
        raise ValueError(
            f"{len(bare)} of {len(names)} images in {source} have no caption, e.g. {bare[0]}; put "
            "a .txt beside "
            f'each, or {METADATA} with "file_name" and "{column}"'
        )
    captions = [texts[_key(PurePosixPath(name))] for name in names]
    return Layout(names, [], {name: i for i, name in enumerate(names)}, captions)


def _key(path: PurePosixPath) -> str:
    """What an image and its caption share: the name without its last suffix."""
    return str(path.with_suffix(""))
