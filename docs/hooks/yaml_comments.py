"""A YAML file of conf/ with what its comments say: the header, and each key with its default."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

HIDDEN = ("defaults", "hydra")
"""Top keys that are Hydra's own."""
SENTENCE = re.compile(r"(?<! al)(?<!e\.g)[.;] ")
"""The end of a sentence, or of what may stand as one."""


@dataclass(frozen=True)
class Key:
    """A key by its dotted path, its default as the file writes it, and the comment beside it."""

    path: str
    value: str
    comment: str


@dataclass(frozen=True)
class Choice:
    """A YAML file: `about` is its first comment, `builds_on` the files of its group it extends."""

    name: str
    about: str
    builds_on: list[str]
    keys: list[Key]
    text: str

    @property
    def sentence(self) -> str:
        """The first sentence of the header."""
        return f"{SENTENCE.split(self.about)[0].rstrip('.')}."


def read(path: Path) -> Choice:
    """A YAML file of conf/; raises yaml.YAMLError where it is none."""
    text = path.read_text()
    # "# @package" is Hydra's, not the reader's.
    header = [line for line in text.splitlines() if not line.startswith("# @")]
    num_header = next((i for i, line in enumerate(header) if not line.startswith("#")), len(header))
    about = " ".join(line[2:] for line in header[:num_header])
    # Nodes know their places in the text; a parsed value would have lost its comment.
    # The header is blanked, so that it is not taken for a comment on the first key.
    lines = text.splitlines()
    for i in range(len(lines)):
        if not lines[i].startswith("#"):
            break
        lines[i] = ""
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode), f"{path} holds no keys"
    defaults = next((v for k, v in node.value if k.value == "defaults"), None)
    # Rows that are mappings choose of other groups; plain ones are files of this group.
    rows = [] if defaults is None else defaults.value
    names = [row.value for row in rows if isinstance(row, yaml.ScalarNode)]
    keys = [
        key
        for name, value in node.value
        if name.value not in HIDDEN
        for key in _keys(name, value, lines, "")
    ]
    body = "\n".join(header[num_header:]).strip()
    return Choice(path.stem, about, [n for n in names if n != "_self_"], keys, body)


def _keys(name: yaml.Node, value: yaml.Node, lines: list[str], prefix: str) -> list[Key]:
    """The keys at and below one; a mapping in braces counts as one value."""
    path = f"{prefix}{name.value}"
    if isinstance(value, yaml.MappingNode) and not value.flow_style:
        return [k for n, v in value.value for k in _keys(n, v, lines, f"{path}.")]
    first, last = value.start_mark, value.end_mark
    # A block scalar's node ends at the start of the line behind it.
    end = last.line if last.column else max(last.line - 1, first.line)
    # As the file writes it: 1.0e-2 and not 0.01, with its quotes.
    text = value.start_mark.buffer[first.index : last.index].rstrip("\0 \n")
    above, i = list[str](), name.start_mark.line - 1
    # Whole lines of comment right above a key are about it.
    while i > 0 and lines[i].lstrip().startswith("#"):
        above.insert(0, lines[i].strip(" #"))
        i -= 1
    # Behind the value only its closing brackets may come before the comment.
    beside = re.match(r"[\s,}\]]*#\s*(.*)", lines[end][last.column :]) if last.column else None
    comment = " ".join([*above, *([beside[1]] if beside else [])])
    return [Key(path, " ".join(text.split()), comment)]
