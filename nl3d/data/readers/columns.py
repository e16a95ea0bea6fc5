"""Tables in memory and in Parquet files, with the checks of CSV tables; boxes in memory, with those of box files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nl3d.data.frames.names import require_file
from nl3d.data.readers.table import Table

PARQUET = (".parquet", ".pq")
BOX_COLUMNS = ("frame", "id", "left", "top", "width", "height", "confidence", "class")
_ALIASES = {"track_id": "id", "conf": "confidence", "score": "confidence"}  # and "bb_left", as MOTChallenge calls it


def open_table(source: Any, *, what: str) -> Table:
    """Open a table: a CSV or Parquet file, a data frame, or a mapping from the names of columns to their cells.

    Args:
        source: The file, a ``pandas.DataFrame``, a ``pyarrow.Table``, a mapping, or what this returned.
        what: Name of such a table in errors.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If it is Parquet and pyarrow is not installed.
        ValueError: If its columns have no names or repeat one, or differ in length.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, str | Path):
        return ParquetTable(source, what=what) if is_parquet(source) else Table(source, what=what)
    return ColumnTable(source, what=what)


def is_table(source: Any) -> bool:
    """Whether :func:`open_table` takes an object as a table in memory."""
    return isinstance(source, Table | Mapping) or is_frame(source)


def is_frame(source: Any) -> bool:
    """Whether an object is a data frame: pandas, polars or Arrow."""
    return hasattr(source, "columns") and any(hasattr(source, name) for name in ("to_dict", "to_pydict"))


def is_parquet(path: str | Path) -> bool:
    """Whether a path names a Parquet file."""
    return Path(path).suffix.lower() in PARQUET


class ColumnTable(Table):
    """A table in memory. Rows are numbered from 1 in errors; missing cells are empty."""

    def __init__(self, source: Any, *, what: str) -> None:
        columns = to_columns(source)
        self.path, self.name = Path(what), what
        lengths = {len(cells) for cells in columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"{what} must have columns of one length, got {', '.join(map(str, sorted(lengths)))}")
        self._cells = list(columns.values())
        self.header = _header(columns, what)

    def _lines(self, start: int) -> Iterator[tuple[int, list[str]]]:
        for number, cells in enumerate(zip(*self._cells, strict=True), 1):
            texts = [_text(cell) for cell in cells]
            if any(texts):
                yield number, texts

    def error(self, line: int, message: str) -> ValueError:
        """Return an error that names the table and a row."""
        return ValueError(f"{self.name}, row {line}: {message}")


class ParquetTable(Table):
    """A table in a Parquet file, read in batches of rows."""

    def __init__(self, path: str | Path, *, what: str) -> None:
        self.path = require_file(path, what=what)
        self.name = f"{what} {str(self.path)!r}"
        self._file = open_parquet(self.path, what)
        self.header = _header(self._file.schema_arrow.names, self.name)

    def columns(self, names: Sequence[str] | None = None) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each row, from 1, and its cells of some columns; all if left out."""
        wanted = None if names is None else [self._file.schema_arrow.names[self.header.index(name)] for name in names]
        yield from self._rows(1, range(self._file.num_row_groups), wanted)

    def section(self, first: int, count: int) -> Iterator[tuple[int, list[str]]]:
        """Yield some rows that follow each other; only their row groups are read."""
        start, described = 1, self._file.metadata
        for group in range(described.num_row_groups):
            stop = start + described.row_group(group).num_rows
            if start < first + count and stop > first:
                for number, cells in self._rows(start, [group]):
                    if first <= number < first + count:
                        yield number, cells
            start = stop

    def _lines(self, start: int) -> Iterator[tuple[int, list[str]]]:
        return self.columns()

    def _rows(
        self, number: int, groups: Sequence[int], names: Sequence[str] | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        for batch in self._file.iter_batches(batch_size=4096, row_groups=list(groups), columns=names):
            columns = [batch.column(name) for name in names] if names else batch.columns
            for cells in zip(*(column.to_pylist() for column in columns), strict=True):
                texts = [_text(cell) for cell in cells]
                if any(texts):
                    yield number, texts
                number += 1

    def error(self, line: int, message: str) -> ValueError:
        """Return an error that names the file and a row."""
        return ValueError(f"{self.path}, row {line}: {message}")


def import_pyarrow(module: str, what: str) -> Any:
    """Import a module of pyarrow, which is optional.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{what} needs pyarrow; install it with: pip install nl3d[parquet]") from None


def open_parquet(path: Path, what: str) -> Any:  # pyarrow.parquet.ParquetFile
    """Open a Parquet file.

    Raises:
        ModuleNotFoundError: If pyarrow is not installed.
        ValueError: If it cannot be read.
    """
    parquet = import_pyarrow("pyarrow.parquet", f"{what} {str(path)!r}")
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise ValueError(f"{what} {str(path)!r} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def to_columns(source: Any) -> dict[Any, Sequence[Any]]:
    """Return the columns of a data frame, an Arrow table, or a mapping, by name."""
    if isinstance(source, Mapping):
        return {name: [*cells] for name, cells in source.items()}
    if hasattr(source, "to_pydict"):  # Arrow
        return dict(source.to_pydict())
    if hasattr(source, "to_dicts"):  # polars
        return dict(source.to_dict(as_series=False))
    return {name: source.iloc[:, place].tolist() for place, name in enumerate(source.columns)}


def _header(names: Any, what: str) -> tuple[str, ...]:
    header = tuple(str(name).strip().lower() for name in names)
    repeated = next((name for place, name in enumerate(header) if name in header[:place]), None)
    if repeated is not None:
        raise ValueError(f"{what} must name each column once, got {repeated!r} twice")
    return header


def _text(cell: Any) -> str:
    """Return a cell as a CSV file has it; what is missing is empty."""
    if isinstance(cell, str):
        return cell.strip()
    missing = cell is None or type(cell).__name__ in ("NAType", "NaTType") or cell != cell
    return "" if missing else str(cell)


class BoxRows:
    """Boxes in memory as the lines of a file of boxes, so that they are parsed and checked like one.

    Args:
        boxes: ``(n, 6)`` or wider, ``frame, id, left, top, width, height`` and further columns as the format has them;
            or a data frame with columns of these names in any order.

    Raises:
        ValueError: If the shape is another, or a column is missing.
        TypeError: If it is neither an array nor a data frame.
    """

    def __init__(self, boxes: Any) -> None:
        if is_frame(boxes) or isinstance(boxes, Mapping):
            columns = to_columns(boxes)
            if not all(isinstance(name, int) for name in columns):  # pandas numbers columns without names
                named = {_box_column(name): cells for name, cells in columns.items()}
                lacking = [name for name in BOX_COLUMNS[:6] if name not in named]
                if lacking:
                    raise ValueError(
                        f"tracks must have the columns {', '.join(BOX_COLUMNS[:6])}, but lack {', '.join(lacking)}, "
                        f"got {', '.join(map(str, columns))}"
                    )
                columns = {name: named[name] for name in BOX_COLUMNS if name in named}
                if "class" in columns:
                    columns.setdefault("confidence", [1] * len(columns["class"]))
                    columns = {name: columns[name] for name in BOX_COLUMNS}
            rows = list(zip(*columns.values(), strict=True))
        else:
            array = boxes.numpy(force=True) if hasattr(boxes, "detach") else np.asarray(boxes)
            if array.ndim != 2 or array.shape[1] < 6 or array.dtype.kind not in "iuf":
                raise ValueError(
                    "tracks must be numbers (n, 6) or wider, frame, id, left, top, width, height, got "
                    f"{array.dtype} {array.shape}"
                )
            rows = array.tolist()
        self.lines = [",".join(_text(cell) or "nan" for cell in row) for row in rows]

    def __str__(self) -> str:
        return "in memory"

    def is_dir(self) -> bool:
        """Return False: this is no folder."""
        return False


def _box_column(name: Any) -> str:
    plain = str(name).strip().lower().removeprefix("bb_")
    return _ALIASES.get(plain, plain)
