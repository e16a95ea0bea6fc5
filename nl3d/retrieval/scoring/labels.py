"""Tables that say who is seen on which tracklet."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nl3d.data.dataset import own_numbers
from nl3d.data.frames.names import require_file
from nl3d.data.readers.manifest import PARTS


class LabelRow(NamedTuple):
    """One tracklet of a table of labels; ``part`` is empty and ``camid`` None where the table has no such column."""

    part: str
    name: str
    pid: int
    camid: int | None


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The tracklets of a table in its order; training tracklets are in it, with the pid -2 and not numbered."""

    path: Path
    rows: tuple[LabelRow, ...]
    has_parts: bool


def read_labels(path: str | Path, *, nobody: Collection[int] = (-1,)) -> LabelTable:
    """Read the labels of tracklets from a CSV table: a manifest, whose frames need not be there, or a shorter one.

    A row has a ``pid`` and the name of its tracklet: ``tracklet`` or, without this column, ``path``. ``camid`` and
    ``part`` (``train``, ``query``, ``gallery``) may be there. Rows of the same part and name are one tracklet, and must
    agree.

    People and cameras keep their numbers if all are whole numbers, else they are numbered from 0 in sorted order;
    people then by numbers that none of ``nobody`` has.

    Args:
        path: The table.
        nobody: Pids of junk and distractors, which keep their numbers beside people with names.

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
    people = _number_people((pid for (part, _), (pid, _, _) in found.items() if part != "train"), nobody)
    cameras = own_numbers(camid for _, camid, _ in found.values() if camid)
    rows = tuple(
        LabelRow(part, name, people[pid] if part != "train" else -2, cameras.get(camid))
        for (part, name), (pid, camid, _) in found.items()
    )
    return LabelTable(path=path, rows=rows, has_parts="part" in header)


def _number_people(labels: Iterable[str], nobody: Collection[int]) -> dict[str, int]:
    labels = set(labels)
    kept = {label: number for label in labels if (number := _whole(label)) is not None and number in nobody}
    people = own_numbers(labels - kept.keys())
    if all(_whole(label) == number for label, number in people.items()):
        return {**people, **kept}
    first = max((0, *(number + 1 for number in nobody)))
    return {**{label: first + number for label, number in people.items()}, **kept}


def _whole(label: str) -> int | None:
    try:
        return int(label)
    except ValueError:
        return None
