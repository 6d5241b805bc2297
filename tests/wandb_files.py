"""Reads back what W&B wrote offline: the log of LevelDB, with a record of protobuf's each."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Page:
    """What an offline piece of a page holds: its history's rows, values as JSON, and the rest."""

    run_id: str = ""
    rows: list[dict[str, str]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)


def pages(folder: Path) -> list[Page]:
    """Each offline piece of the run in `folder`, in the order of time."""
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    return [page_of(path.read_bytes()) for path in paths]


def page_of(data: bytes) -> Page:
    """What a file of W&B's says."""
    page = Page()
    for record in records(data):
        match record.WhichOneof("record_type"):
            case "run":
                page.run_id = record.run.run_id
            case "history":
                items = record.history.item
                page.rows.append({x.key or x.nested_key[0]: x.value_json for x in items})
            case "summary":
                items = record.summary.update
                page.summary |= {x.key or x.nested_key[0]: json.loads(x.value_json) for x in items}
            case "alert":
                page.alerts.append(record.alert.title)
            case "artifact":
                page.files |= {entry.path for entry in record.artifact.manifest.contents}
    return page


def records(data: bytes) -> list[Any]:
    """The records of a log."""
    from wandb.proto import wandb_internal_pb2  # noqa: PLC0415

    found, record, place = [], b"", 7
    # Blocks of 32 KiB, a header of 4 + 2 + 1 bytes before each part.
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(record))
            record = b""
    return found
