"""CSV tables: the one reader of manifests, tables of labels and lists of tracklets."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from nl3d.data.frames.names import require_file
from nl3d.data.labels import parse_label

_QUOTED_CELL = re.compile(r'(^|,) *"[^"]*(?:""[^"]*)*"(?=,|$)')


class Table:
    """A CSV table in UTF-8 with the names of its columns in the first line.

    One line is one row, so quotation marks must be closed on their line. Blanks around cells are dropped, empty rows
    are skipped, and names of columns may be in upper or lower case. Line ends are those of Unix, Windows or old Macs.

    Args:
        path: The file.
        what: Name of such a file in errors, such as ``"manifest"``.
    """

    def __init__(self, path: str | Path, *, what: str) -> None:
        self.path = require_file(path, what=what)
        self.name = f"{what} {str(self.path)!r}"
        self.header = tuple(cell.lower() for _, cells in self._lines(0) for cell in cells)
        repeated = [name for place, name in enumerate(self.header) if name and name in self.header[:place]]
        if repeated:
            raise ValueError(f"{self.name} must name each column once, got {repeated[0]!r} twice")

    def __contains__(self, column: str) -> bool:
        return column in self.header

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table without one of some columns; ``"a or b"`` requires one of two."""
        if all(any(name in self for name in column.split(" or ")) for column in columns):
            return
        found = ", ".join(map(repr, self.header)) or "none"
        other = next((mark for mark in (";", "\t", "|") if any(mark in name for name in self.header)), None)
        remedy = f"; its columns are separated by {other!r}, separate them by commas" if other else ""
        rule = f"{self.name} must have the columns {', '.join(columns)} in its first line"
        raise ValueError(f"{rule}, got {found}{remedy}")

    def rows(
        self, columns: Sequence[str], *, filled: Collection[str] = (), labels: Collection[str] = ("pid", "camid")
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each row's line and its cells of some columns.

        Cells of columns that the table does not have are empty. Backslashes in the column ``path`` become slashes.

        Args:
            columns: The columns.
            filled: Those whose cells must not be empty.
            labels: Those whose cells are labels, see :func:`nl3d.data.labels.parse_label`, or empty.
        """
        width, line = len(self.header), 0
        places = [self.header.index(column) if column in self else width for column in columns]
        must = [place for place, column in zip(places, columns, strict=True) if column in filled]
        parsed = [place for place, column in zip(places, columns, strict=True) if column in labels]
        path = self.header.index("path") if "path" in columns and "path" in self else width
        for line, cells in self._lines(1):
            if len(cells) > width:
                rule = f"a row must have at most {width} cells, as the first line has, got {len(cells)}"
                raise self.error(line, f"{rule}; put cells with commas into quotation marks")
            cells += [""] * (width + 1 - len(cells))
            if "\\" in cells[path]:
                cells[path] = cells[path].replace("\\", "/")
            for place in must:
                if not cells[place]:
                    raise self.error(line, f"{self.header[place]} must not be empty")
            for place in parsed:
                if cells[place]:
                    try:
                        cells[place] = parse_label(cells[place])
                    except ValueError as error:
                        raise self.error(line, f"{self.header[place]}: {error}") from None
            yield line, [cells[place] for place in places]
        if not line:
            raise ValueError(f"{self.name} must hold at least one row below its header, got none")

    def error(self, line: int, message: str) -> ValueError:
        """Return an error that names the file and a line."""
        return ValueError(f"{self.path}, line {line}: {message}")

    def _lines(self, start: int) -> Iterator[tuple[int, list[str]]]:
        """Yield the first line, or all others that are not empty, as numbers and cells."""
        try:
            with self.path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    cells = self.cells(number, line)
                    if number > start and any(cells):
                        yield number, cells
                    if not start:
                        return
        except UnicodeError:
            raise self._wrong_encoding() from None

    def cells(self, number: int, line: str) -> list[str]:
        """Split a line into its cells.

        Raises:
            UnicodeError: If it holds a zero byte, as text in UTF-16 does.
            ValueError: If a quotation mark is not closed.
        """
        if "\0" in line:
            raise UnicodeError
        return self._quoted(number, line) if '"' in line else [cell.strip() for cell in line.split(",")]

    def _quoted(self, number: int, line: str) -> list[str]:
        line = line.rstrip("\n")
        if '"' in _QUOTED_CELL.sub("", line):
            rule = f"quotation marks must enclose a whole cell and be closed on their line, got {line[:80]!r}"
            raise self.error(number, f'{rule}; inside a cell write them twice ("")')
        try:
            return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True, strict=True))]
        except csv.Error as error:
            raise self.error(number, f"a line must be CSV: {error}") from None

    def _wrong_encoding(self) -> ValueError:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    return ValueError(f"{self.name} must be text in UTF-8, but is UTF-16; save it as 'CSV UTF-8'")
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError:
                    text = "\0"
                if "\0" in text:
                    break
        return self.error(number, "a table must be text in UTF-8, but this line is not; save it as 'CSV UTF-8'")
