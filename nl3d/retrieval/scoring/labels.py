"""Tables that say who is seen on which tracklet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nl3d.data.dataset import PARTS
from nl3d.data.labels import DISTRACTOR, JUNK, number_labels
from nl3d.data.readers.columns import open_table

_LABELS = ("pid", "camid", "clothes")


class LabelRow(NamedTuple):
    """One tracklet of a table of labels; without its column, ``part`` is empty, and ``camera`` or ``clothes`` None."""

    part: str
    name: str
    pid: int
    camid: int | None
    person: str
    camera: str | None
    clothes: str | None = None


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The tracklets of a table in its order, training tracklets included."""

    path: Path
    rows: tuple[LabelRow, ...]
    has_parts: bool


def read_labels(source: Any, *, not_people: Collection[int] = (-1,)) -> LabelTable:
    """Read the labels of tracklets from a table: a manifest, whose frames need not be there, or a shorter one.

    A row has a ``pid`` and the name of its tracklet: ``tracklet`` or, without this column, ``path``. ``camid``,
    ``clothes`` and ``part`` (``train``, ``query``, ``gallery``) may be there. Rows of the same part and name are one
    tracklet, and must agree.

    Labels of people and cameras are read by :func:`nl3d.data.labels.parse_label` and numbered by
    :func:`nl3d.data.labels.number_labels`.

    Args:
        source: The table: a CSV or Parquet file, or a data frame; or a mapping from names of tracklets to people.
        not_people: Pids of junk and distractors, which no name gets as its number.
    """
    if isinstance(source, Mapping):
        known = {name: person for name, person in source.items() if person is not None}
        source = {"tracklet": list(known), "pid": list(known.values())}
    table = open_table(source, what="table of labels")
    table.require(("tracklet or path", "pid"))
    columns = ("tracklet" if "tracklet" in table else "path", "pid", "camid", "part", "clothes")
    filled = [column for column in columns if column in table]
    found: dict[tuple[str, str], tuple[str, str, str, int]] = {}
    for line, (name, pid, camid, part, clothes) in table.rows(columns, filled=filled, labels=_LABELS):
        if "part" in table and part not in PARTS:
            raise table.error(line, f"part must be train, query or gallery, got {part!r}")
        old_pid, old_camid, old_clothes, old_line = found.setdefault((part, name), (pid, camid, clothes, line))
        if (old_pid, old_camid) != (pid, camid):
            raise table.error(
                line,
                f"tracklet {name!r} must be of one person under one camera, got pid {pid!r} and camid {camid!r} after "
                f"{old_pid!r} and {old_camid!r} on line {old_line}"
                + ("" if part else "; a part column tells query and gallery apart"),
            )
        if old_clothes != clothes:
            raise table.error(
                line,
                f"tracklet {name!r} must be in the same clothes, got {clothes!r} after {old_clothes!r} "
                f"on line {old_line}",
            )
    people = number_labels((pid for pid, *_ in found.values()), {JUNK, DISTRACTOR, *not_people})
    cameras = number_labels(camid for _, camid, *_ in found.values() if camid)
    rows = tuple(
        LabelRow(part, name, people[pid], cameras.get(camid), pid, camid or None, clothes or None)
        for (part, name), (pid, camid, clothes, _) in found.items()
    )
    return LabelTable(path=table.path, rows=rows, has_parts="part" in table)
