"""Tables that say who is seen on which tracklet."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nl3d.data.frames.names import require_file
from nl3d.data.labels import DISTRACTOR, JUNK, number_labels, parse_label
from nl3d.data.readers.manifest import PARTS


class LabelRow(NamedTuple):
    """One tracklet of a table of labels; ``part`` is empty and ``camera`` is None if the table has no such column."""

    part: str
    name: str
    pid: int
    camid: int | None
    person: str
    camera: str | None


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The tracklets of a table in its order, training tracklets included."""

    path: Path
    rows: tuple[LabelRow, ...]
    has_parts: bool


def read_labels(path: str | Path, *, nobody: Collection[int] = (-1,)) -> LabelTable:
    """Read the labels of tracklets from a CSV table: a manifest, whose frames need not be there, or a shorter one.

    A row has a ``pid`` and the name of its tracklet: ``tracklet`` or, without this column, ``path``. ``camid`` and
    ``part`` (``train``, ``query``, ``gallery``) may be there. Rows of the same part and name are one tracklet, and must
    agree.

    Labels of people and cameras are read by :func:`nl3d.data.labels.parse_label` and numbered by
    :func:`nl3d.data.labels.number_labels`.

    Args:
        path: The table.
        nobody: Pids of junk and distractors, which no name gets as its number.

    Raises:
        FileNotFoundError: If there is no such table.
        ValueError: If a column or a value is missing, or rows of one tracklet contradict each other.
    """
    path = require_file(path, what="table of labels")
    found: dict[tuple[str, str], tuple[str, str, int]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            header = table.fieldnames or ()
            name_column = "tracklet" if "tracklet" in header else "path"
            columns = [name_column, "pid", *(column for column in ("camid", "part") if column in header)]
            if not {name_column, "pid"} <= {*header}:
                raise ValueError(
                    f"table of labels {str(path)!r} must have columns tracklet (or path) and pid in its first line, "
                    f"got {', '.join(map(repr, header)) or 'none'}"
                )
            for line in table:
                where = f"{path}, line {table.line_num}"
                empty = [column for column in columns if not line[column]]
                if empty:
                    raise ValueError(f"{where}: {empty[0]} must not be empty")
                name, pid, camid, part = (line.get(column) or "" for column in (name_column, "pid", "camid", "part"))
                if "part" in header and part not in PARTS:
                    raise ValueError(f"{where}: part must be train, query or gallery, got {part!r}")
                try:
                    pid, camid = (label and parse_label(label) for label in (pid, camid))
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from None
                old_pid, old_camid, old_line = found.setdefault((part, name), (pid, camid, table.line_num))
                if (old_pid, old_camid) != (pid, camid):
                    raise ValueError(
                        f"{where}: tracklet {name!r} must be of one person under one camera, got pid {pid!r} and "
                        f"camid {camid!r} after {old_pid!r} and {old_camid!r} on line {old_line}"
                        + ("" if part else "; a part column tells query and gallery apart")
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"table of labels {str(path)!r} must be CSV in UTF-8: {error}") from None
    if not found:
        raise ValueError(f"table of labels {str(path)!r} must hold at least one row below its header, got none")
    people = number_labels((pid for pid, _, _ in found.values()), {JUNK, DISTRACTOR, *nobody})
    cameras = number_labels(camid for _, camid, _ in found.values() if camid)
    rows = tuple(
        LabelRow(part, name, people[pid], cameras.get(camid), pid, camid or None)
        for (part, name), (pid, camid, _) in found.items()
    )
    return LabelTable(path=path, rows=rows, has_parts="part" in header)
