"""How far the preparation of a folder is: a small file that is written after the rows it counts."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dmd2.files import write_json

FILE = "progress.json"


@dataclass
class Progress:
    """Files of a stream read so far, what kinds they were ("JPEG RGB"), and the names of the broken ones.

    `plan` is a hash of the source and of all that is done to it: two plans never share a folder.
    """

    plan: str
    num_read: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, plan: str) -> "Progress | None":
        """What was written in `folder`, None for nothing; raises ValueError where it is of another plan."""
        if not (folder / FILE).exists():
            return None
        found = json.loads((folder / FILE).read_text())
        if found["plan"] != plan:
            raise ValueError(
                f"{folder} was begun from other files or with other options; remove it, or choose another place"
            )
        return cls(**found)

    def write(self, folder: Path) -> None:
        """Replace the file whole."""
        write_json(folder / FILE, asdict(self))
