"""Rows of a gallery's tables: put in, read, and deleted so that no byte of them is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nl3d.gallery.conditions import COLUMNS
from nl3d.gallery.store import GalleryFile

ROWS_AT_ONCE = 500
"""SQLite takes 999 values or more in a statement."""


def insert(file: GalleryFile, row: Sequence[Any], vector: bytes, jpeg: bytes | None) -> None:
    """Put in a tracklet with its vector and thumbnail."""
    marks = ", ".join("?" * len(row))
    key = file.write(f"INSERT INTO tracklets ({COLUMNS}) VALUES ({marks})", row).lastrowid
    file.write("INSERT INTO vectors VALUES (?, ?)", (key, vector))
    if jpeg is not None:
        file.write("INSERT INTO thumbnails VALUES (?, ?)", (key, jpeg))


def describe(file: GalleryFile, keys: Sequence[int]) -> list[tuple[Any, ...]]:
    """Return id and columns of some tracklets."""
    found = []
    for start in range(0, len(keys), ROWS_AT_ONCE):
        some = keys[start : start + ROWS_AT_ONCE]
        marks = ", ".join("?" * len(some))
        found += file.rows(f"SELECT id, {COLUMNS} FROM tracklets WHERE id IN ({marks})", some)
    return found


def delete(file: GalleryFile, condition: str, values: Sequence[Any]) -> int:
    """Delete tracklets with all that belongs to them, and return their number; :func:`rewrite_if_pending` follows."""
    chosen = f"(SELECT id FROM tracklets WHERE {condition})"
    for table in ("thumbnails", "vectors"):
        file.write(f"DELETE FROM {table} WHERE id IN {chosen}", values)
    removed = file.write(f"DELETE FROM tracklets WHERE {condition}", values).rowcount
    if removed:
        file.note("removals", str(_count(file, "removals") + 1))
    return removed


def rewrite(file: GalleryFile) -> None:
    """Write the whole file anew: SQLite leaves copies of deleted rows in pages that it has divided."""
    removals = _count(file, "removals")
    file.rewrite()
    with file.writing():
        file.note("rewritten", str(max(removals, _count(file, "rewritten"))))


def is_rewrite_pending(file: GalleryFile) -> bool:
    """Whether rows were deleted since the file was last rewritten."""
    return _count(file, "removals") != _count(file, "rewritten")


def rewrite_if_pending(file: GalleryFile) -> None:
    """Rewrite the file if something was deleted.

    Raises:
        OSError: If there is no room for it, although the rows are gone.
    """
    if not is_rewrite_pending(file):
        return
    try:
        rewrite(file)
    except OSError as error:
        raise OSError(
            f"the tracklets were removed, but what SQLite copied of them may be left until nl3d gallery optimize "
            f"succeeds: {error.__cause__ or error}"
        ) from error


def _count(file: GalleryFile, what: str) -> int:
    return int(file.about(what) or 0)
