"""Tables of any size: where each tracklet stands, so that a part is read without the rest."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nl3d.data.frames.names import IMAGE_SUFFIXES
from nl3d.data.readers.columns import ParquetTable, open_table
from nl3d.data.readers.manifest import read_manifest_tracklets
from nl3d.data.readers.table import Table
from nl3d.data.tracklets import Tracklet


@dataclass(frozen=True, eq=False)
class TableIndex:
    """Rows of each tracklet of a table of images: 32 bytes per tracklet, whatever its number of frames.

    Args:
        path: The table, CSV or Parquet.
        rows: Number of the first row of each tracklet, from 1, the header's line included; int64 ``(N,)``.
        offsets: Byte at which that row begins, 0 for Parquet; int64 ``(N,)``.
        spans: Rows from the first of each tracklet to the last, empty ones included; int64 ``(N,)``.
        lengths: Frames of each tracklet, int64 ``(N,)``.
        prefix_parts: Whether two parts have tracklets of one name, so that names carry their part.
        digest: Hash of the table.
    """

    path: Path
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    spans: NDArray[np.int64]
    lengths: NDArray[np.int64]
    prefix_parts: bool
    digest: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: range) -> TableIndex:
        cut = slice(part.start, part.stop)
        columns = {name: getattr(self, name)[cut].copy() for name in ("rows", "offsets", "spans", "lengths")}
        return replace(self, **columns)

    def read(self, part: range, *, check_files: bool = False) -> list[Tracklet]:
        """Read some tracklets that follow each other, with the checks of every table.

        Raises:
            FileNotFoundError: If ``check_files`` is on and a frame is missing.
            ValueError: If a value is missing, rows of one tracklet contradict each other, or the table has changed.
        """
        last = part.stop - 1
        count = int(self.rows[last] + self.spans[last] - self.rows[part.start])
        section = _Section(self.path, int(self.rows[part.start]), int(self.offsets[part.start]), count)
        found = read_manifest_tracklets(section, check_files=check_files, prefix_parts=self.prefix_parts)
        if (
            len(found) != len(part)
            or [len(tracklet) for tracklet in found] != self.lengths[part.start : last + 1].tolist()
        ):
            raise ValueError(f"manifest {str(self.path)!r} must not change while it is read; repeat the command")
        return found


def index_table(path: str | Path) -> TableIndex | None:
    """Find the tracklets of a table in one pass, without holding it.

    Args:
        path: The table; its rows are images, and those of one tracklet stand together.

    Returns:
        The index; None if rows are folders, whose frames must be listed, or rows of one tracklet stand apart.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If it is Parquet and pyarrow is not installed.
        ValueError: If it has no column ``path`` or no row.
    """
    table = open_table(path, what="manifest")
    table.require(("path",))
    firsts, offsets, lasts, counts = (array("q") for _ in range(4))
    keys, names = array("Q"), array("Q")
    before: tuple[bytes, bytes] | None = None
    last = count = 0
    rows = _parquet_rows(table) if isinstance(table, ParquetTable) else _csv_rows(table)
    for number, offset, image, name, part in rows:
        if not image.lower().endswith(_SUFFIXES):
            return None
        if (part, name) != before:
            if count:
                lasts.append(last)
                counts.append(count)
            before, count = (part, name), 0
            firsts.append(number)
            offsets.append(offset)
            names.append(_hash(name))
            keys.append(_hash(part + b"\0" + name) if part else names[-1])
        last = number
        count += 1
    if not count or len(np.unique(keys)) < len(keys):
        return None
    lasts.append(last)
    counts.append(count)
    spans = np.array(lasts) - np.array(firsts) + 1
    shared = len(np.unique(names)) < len(names)
    digest = _digest(table.path)
    return TableIndex(
        table.path.resolve(), np.array(firsts), np.array(offsets), spans, np.array(counts), shared, digest
    )


_KEY = ("path", "tracklet", "part")  # columns that say which tracklet a row belongs to
_SUFFIXES = tuple(suffix.encode() for suffix in IMAGE_SUFFIXES)


def _hash(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()[:16]


def _csv_rows(table: Table) -> Iterator[tuple[int, int, bytes, bytes, bytes]]:
    """Yield line, byte offset, path, tracklet and part of each row, unchecked; no path if they cannot be found."""
    width = len(table.header)
    path, name, part = (table.header.index(column) if column in table else width for column in _KEY)
    nothing = [b""] * (width + 1)
    with table.path.open("rb") as file:
        offset = len(file.readline())
        for number, line in enumerate(file, 2):
            if b"\r" in line and line.count(b"\r") > line.endswith(b"\r\n"):  # line ends of old Macs: no offset
                yield number, offset, b"", b"", b""
                return
            if b'"' in line:
                text = line.decode("utf-8", "surrogateescape")
                cells = [cell.encode("utf-8", "surrogateescape") for cell in table.cells(number, text)]
            else:
                cells = line.strip().split(b",")
            cells += nothing[len(cells) :]
            image = cells[path].strip().replace(b"\\", b"/")
            if image or b"".join(cells).strip():
                yield number, offset, image, cells[name].strip() or image, cells[part].strip()
            offset += len(line)


def _parquet_rows(table: ParquetTable) -> Iterator[tuple[int, int, bytes, bytes, bytes]]:
    present = [name for name in _KEY if name in table]
    for number, cells in table.columns(present):
        found = dict(zip(present, cells, strict=True))
        image, name, part = (found.get(column, "").encode("utf-8", "surrogateescape") for column in _KEY)
        image = image.replace(b"\\", b"/")
        yield number, 0, image, name or image, part


class _Section(Table):
    """Rows of a table that follow each other, with its own numbers in errors."""

    def __init__(self, path: Path, first: int, offset: int, count: int) -> None:
        whole = open_table(path, what="manifest")
        self.path, self.name, self.header, self.error = whole.path, whole.name, whole.header, whole.error  # type: ignore[method-assign]
        self._whole, self._first, self._offset, self._count = whole, first, offset, count

    def _lines(self, start: int) -> Iterator[tuple[int, list[str]]]:
        if isinstance(self._whole, ParquetTable):
            yield from self._whole.section(self._first, self._count)
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            lines: Iterable[bytes] = islice(file, self._count)
            for number, line in enumerate(lines, self._first):
                try:
                    cells = self.cells(number, line.decode("utf-8"))
                except UnicodeError:
                    raise self._wrong_encoding() from None
                if any(cells):
                    yield number, cells
