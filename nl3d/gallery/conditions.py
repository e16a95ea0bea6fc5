"""Conditions on the tracklets of a gallery, and its rows as entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nl3d.gallery.answers import Entry
from nl3d.gallery.times import Time, parse_time

COLUMNS = "name, person, camera, first_frame, last_frame, first_time, last_time, added"
"""Columns of an entry, in the order of :func:`to_entry`."""


def as_texts(value: str | Sequence[str] | None) -> list[str] | None:
    """Return one text or several as a list."""
    return None if value is None else [value] if isinstance(value, str) else [str(text) for text in value]


def make_condition(
    *,
    name: str | Sequence[str] | None = None,
    person: str | Sequence[str] | None = None,
    camera: str | Sequence[str] | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> tuple[str, list[Any]]:
    """Return a condition on a row of ``tracklets`` and its values."""
    parts, values = [], list[Any]()
    for column, given in (("name", name), ("person", person), ("camera", camera)):
        if (texts := as_texts(given)) is not None:
            parts.append(f"{column} IN ({', '.join('?' * len(texts))})")
            values += texts
    for condition, moment, what in (("last_time >= ?", since, "since"), ("first_time <= ?", until, "until")):
        if moment is not None:
            parts.append(condition)
            values.append(parse_time(moment, name=what))
    return " AND ".join(parts), values


def to_entry(row: Sequence[Any]) -> Entry:
    """Return a row of :data:`COLUMNS` as an entry."""
    name, person, camera, first_frame, last_frame, first_time, last_time, added = row
    frames = None if first_frame is None else (first_frame, last_frame)
    return Entry(name, person, camera, frames, None if first_time is None else (first_time, last_time), added)
