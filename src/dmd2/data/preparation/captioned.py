"""Layout of captioned images: a text or JSON file beside each (webdataset), or a metadata.jsonl
(Hugging Face's imagefolder).
"""

from pathlib import Path, PurePosixPath

from dmd2.data.captions import caption_of, parse_json
from dmd2.data.preparation.archives import members
from dmd2.data.preparation.layout import Layout, in_order
from dmd2.data.preparation.picture import is_image

METADATA = "metadata.jsonl"


def captioned(source: Path, column: str) -> Layout:
    """All images of `source` as train split, each a class of its own, named by its caption.

    The caption of KEY.jpg is the text of KEY.txt, the entry `column` of KEY.json, or that of the
    row of metadata.jsonl with the image's "file_name". Raises ValueError where there are no images,
    or an image has no caption.
    """
    names, texts = list[str](), dict[str, str]()
    for member in members(source):
        path, where = PurePosixPath(member.name), f"{member.name} in {source}"
        if is_image(member.name):
            names.append(member.name)
        elif path.name == METADATA:
            for i, line in enumerate(member.read().splitlines(), 1):
                row = parse_json(line, f"line {i} of {where}")
                # File names count from the folder that metadata.jsonl lies in.
                image = path.parent / caption_of(row, "file_name", f"line {i} of {where}")
                texts[_key(image)] = caption_of(row, column, f"line {i} of {where}")
        elif path.suffix == ".txt":
            texts[_key(path)] = member.read().decode().strip()
        elif path.suffix == ".json":
            row = parse_json(member.read(), where)
            # Other JSON files are no error: webdataset has some about a whole tar. A .txt, which is
            # the caption and nothing else, goes before a .json.
            if isinstance(row, dict) and column in row:
                texts.setdefault(_key(path), caption_of(row, column, where))
    names = in_order(names, source)
    if bare := [name for name in names if _key(PurePosixPath(name)) not in texts]:
        raise ValueError(
            f"{len(bare)} of {len(names)} images in {source} have no caption, e.g. {bare[0]}; put "
            f'a .txt beside each, or {METADATA} with "file_name" and "{column}"'
        )
    # Captions are not merged where two images share one: row i has caption i.
    captions = [texts[_key(PurePosixPath(name))] for name in names]
    return Layout(names, [], {name: i for i, name in enumerate(names)}, captions)


def _key(path: PurePosixPath) -> str:
    """What an image and its caption share: the name without its last suffix."""
    # webdataset ends a key at the first dot; here names may hold dots, e.g. v1.2.jpg.
    return str(path.with_suffix(""))
