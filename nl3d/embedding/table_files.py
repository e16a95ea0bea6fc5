"""Embeddings as tables: CSV, Parquet and Lance, one row per tracklet, for every other tool."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nl3d.data.clips.batches import track_numbers
from nl3d.data.readers.columns import import_pyarrow
from nl3d.files import replacing
from nl3d.unpickle import ALLOWANCE

NUMBERS = {"track_id": "track_ids", "pid": "pids", "camid": "camids"}
TEXTS = {"tracklet": "names", "person": "people", "camera": "cameras"}
FRAMES = ("first_frame", "last_frame")
MAKER = ("network", "output")  # metadata that a CSV file keeps, so that vectors of two networks are never compared
VECTOR, METADATA = "embedding", b"nl3d"
ROWS_PER_GROUP = 16384
_LARGEST_RATIO = 16  # bytes of vectors in memory per byte of a Parquet file

Blocks = Iterable[tuple[int, Tensor]]


def to_table(columns: Mapping[str, Any], rows: slice = slice(None)) -> dict[str, list[Any]]:
    """Return the columns of a table from those of :class:`nl3d.Embeddings`; None where a label is not known."""
    table: dict[str, list[Any]] = {"tracklet": list(columns["names"][rows])}
    for text, number in (("", "track_id"), ("person", "pid"), ("camera", "camid")):
        if text and columns.get(TEXTS[text]) is not None:
            table[text] = list(columns[TEXTS[text]][rows])
        if columns.get(NUMBERS[number]) is not None:
            table[number] = columns[NUMBERS[number]][rows].tolist()
    if columns.get("frame_ranges") is not None:
        table |= dict(zip(FRAMES, columns["frame_ranges"][rows].T.tolist(), strict=True))
    return table


def from_table(table: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return the arguments of :class:`nl3d.Embeddings` from the columns of a table; unknown labels are empty."""
    columns: dict[str, Any] = {}
    for name, column in TEXTS.items():
        if name in table:
            columns[column] = ["" if cell is None else str(cell) for cell in table[name]]
    for name, column in NUMBERS.items():
        if name in table and not {None, ""} & {*table[name]}:  # numbers are known for all or for none
            columns[column] = np.array([int(cell) for cell in table[name]], dtype=np.int64)
    if "names" in columns and "track_ids" not in columns:
        columns["track_ids"] = np.array(track_numbers(columns["names"]), dtype=np.int64)
    if all(name in table for name in FRAMES):
        columns["frame_ranges"] = np.array([[int(cell) for cell in table[name]] for name in FRAMES], dtype=np.int64).T
    return columns


# CSV


def write_csv(path: Path, blocks: Blocks, columns: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write a CSV file: labels, then the numbers of the vectors in columns 0, 1, ..., with all their digits."""
    table = to_table(columns)
    for name in MAKER:
        if metadata.get(name):
            table[name] = [metadata[name]] * len(table["tracklet"])
    described = zip(*table.values(), strict=True)
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        header: list[Any] = list(table)
        for start, block in blocks:
            if not start:
                writer.writerow(header + list(range(block.shape[1])))
            for vector in block.numpy():
                writer.writerow((*next(described), *vector.astype(str).tolist()))


def read_csv(path: Path) -> dict[str, Any]:
    """Read what :func:`write_csv` wrote, or any table with vectors in columns 0, 1, ... and others of its names.

    Raises:
        ValueError: If there are no vectors, or a row has other columns than the first.
    """
    rows: list[NDArray[Any]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            header = [name.strip().lower() for name in next(lines, [])]
            places = {name: place for place, name in enumerate(header)}
            width = sum(name.isascii() and name.isdigit() for name in header)
            lacking = [str(number) for number in range(max(width, 1)) if str(number) not in places]
            if lacking:
                raise ValueError(f"it must have the columns 0, 1, ... of the vectors, but lacks {lacking[0]}")
            values = [places[str(number)] for number in range(width)]
            kept = [name for name in header if name in (*TEXTS, *NUMBERS, *FRAMES, *MAKER)]
            table: dict[str, list[str]] = {name: [] for name in kept}
            dtype: Any = None
            for cells in lines:
                if len(cells) != len(header):
                    raise ValueError(f"line {lines.line_num} must have {len(header)} cells, got {len(cells)}")
                for name in kept:
                    table[name].append(cells[places[name]])
                numbers = [cells[place] for place in values]
                vector = np.array(numbers, dtype=np.float64)
                if dtype is None:  # as many digits as float32 needs are float32
                    short = vector.astype(np.float32)
                    dtype = np.float32 if short.astype(str).tolist() == numbers else np.float64
                rows.append(vector.astype(dtype))
        except csv.Error as error:
            raise ValueError(f"line {lines.line_num}: {error}") from None
    found = {name: set(table.pop(name, [])) for name in MAKER}
    if any(len(values) > 1 for values in found.values()):
        raise ValueError("its rows must be of one network and one output layer, got several; split it by them")
    metadata = {name: text for name, texts in found.items() for text in texts if text}
    vectors = np.stack(rows) if rows else np.empty((0, width), np.float32)
    return {"embeddings": vectors, **from_table(table), **({"metadata": metadata} if metadata else {})}


# Parquet and Lance


def to_arrow(vectors: Tensor, table: Mapping[str, list[Any]], metadata: Mapping[str, str]) -> Any:  # pyarrow.Table
    """Return vectors ``(N, D)`` and the columns of :func:`to_table` as an Arrow table.

    Raises:
        ModuleNotFoundError: If pyarrow is not installed.
    """
    arrow = import_pyarrow("pyarrow", "a table of embeddings")
    numbers = arrow.array(vectors.contiguous().view(-1).numpy())
    arrays = {name: arrow.array(cells, arrow.int64() if name in (*NUMBERS, *FRAMES) else arrow.string())
              for name, cells in table.items()}  # fmt: skip
    arrays[VECTOR] = arrow.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
    return arrow.table(arrays).replace_schema_metadata({METADATA: json.dumps(dict(metadata))})


def arrow_batches(blocks: Blocks, columns: Mapping[str, Any], metadata: Mapping[str, str]) -> Iterator[Any]:
    """Yield all rows as Arrow tables of a few thousand rows."""
    for start, block in blocks:
        for first in range(0, len(block), ROWS_PER_GROUP):
            vectors = block[first : first + ROWS_PER_GROUP]
            rows = slice(start + first, start + first + len(vectors))
            yield to_arrow(vectors, to_table(columns, rows), metadata)


def write_parquet(path: Path, batches: Iterable[Any]) -> None:
    """Write Arrow tables to one Parquet file, whole or not at all. Vectors are stored as they are."""
    parquet = import_pyarrow("pyarrow.parquet", f"output {str(path)!r}")
    writer = None
    with replacing(path) as unfinished:
        for table in batches:
            if writer is None:
                texts = [name for name in table.column_names if name != VECTOR]
                writer = parquet.ParquetWriter(unfinished, table.schema, compression="zstd", use_dictionary=texts)
            writer.write_table(table)
        assert writer is not None
        writer.close()


def read_parquet(path: Path) -> dict[str, Any]:
    """Read a Parquet file, or a folder of them in the order of their names.

    Raises:
        ModuleNotFoundError: If pyarrow is not installed.
        ValueError: If it has no column ``embedding`` of lists of one length, or would take far more memory than it has
            bytes.
    """
    parquet = import_pyarrow("pyarrow.parquet", f"embeddings file {str(path)!r}")
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError("it must hold Parquet files, got none")
    for file in files:
        described = parquet.read_metadata(file)
        names = [described.schema.column(place).path.partition(".")[0] for place in range(described.num_columns)]
        values = sum(described.row_group(group).column(names.index(VECTOR)).num_values
                     for group in range(described.num_row_groups) if VECTOR in names)  # fmt: skip
        if 4 * values > _LARGEST_RATIO * file.stat().st_size + ALLOWANCE:
            raise ValueError(f"its vectors would take {4 * values:,} bytes, far more than the file")
    tables = [parquet.ParquetFile(file).read() for file in files]
    described = [_metadata(table) for table in tables]
    makers = {tuple(metadata.get(name) for name in MAKER) for metadata in described}
    if len(makers) > 1:
        raise ValueError("its parts must be of one network and one output layer, got several")
    arrow = import_pyarrow("pyarrow", "a table of embeddings")
    filled = [table for table in tables if len(table)] or tables[:1]  # a part may have no vector
    found = from_arrow(arrow.concat_tables(filled, promote_options="default"))  # labels may be unknown in a part
    if len(files) > 1 and "notes" in found.get("metadata", {}):
        found["metadata"]["notes"] = json.dumps(add_notes(json.loads(metadata["notes"]) for metadata in described))
    return found


def add_notes(notes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add the notes of parts: their counts and their lists; text stays that of the first part."""
    first, *others = notes
    return {
        key: value if isinstance(value, str) else sum((other[key] for other in others), value)
        for key, value in first.items()
    }


def from_arrow(table: Any) -> dict[str, Any]:
    """Return the arguments of :class:`nl3d.Embeddings` from an Arrow table.

    Raises:
        ValueError: If it has no column ``embedding`` of lists of one length.
    """
    if VECTOR not in table.column_names:
        raise ValueError(f"it must have a column {VECTOR!r} of lists, got {', '.join(table.column_names) or 'none'}")
    column = table[VECTOR].combine_chunks()
    if column.null_count or not hasattr(column, "flatten"):
        raise ValueError(f"column {VECTOR!r} must hold one list of numbers per row, got {column.type}")
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    widths = import_pyarrow("pyarrow.compute", "a table of embeddings").list_value_length(column).unique().to_pylist()
    if len(widths) > 1:
        raise ValueError(f"column {VECTOR!r} must hold lists of one length, got {widths[0]} and {widths[1]}")
    width = widths[0] if widths else 1
    kept = [name for name in (*TEXTS, *NUMBERS, *FRAMES) if name in table.column_names]
    found = {"embeddings": np.array(numbers.reshape(-1, width)), **from_table(table.select(kept).to_pydict())}
    return {**found, "metadata": _metadata(table)} if METADATA in (table.schema.metadata or {}) else found


def _metadata(table: Any) -> dict[str, str]:
    content = (table.schema.metadata or {}).get(METADATA, b"{}")
    return {str(key): str(value) for key, value in json.loads(content).items()}


def table_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a Parquet file, of the first file of a folder, or of a Lance table."""
    if path.suffix.lower() == ".lance":
        return _metadata(_lancedb(path).connect(path.parent).open_table(path.stem))
    first = next(iter(sorted(path.glob("*.parquet"))), None) if path.is_dir() else path
    if first is None:
        return {}
    parquet = import_pyarrow("pyarrow.parquet", f"embeddings file {str(path)!r}")
    return _metadata(parquet.read_schema(first).empty_table())


def read_parts(paths: Iterable[Path], metadata: Mapping[str, str]) -> Iterator[Any]:
    """Yield Parquet files that hold a row as Arrow tables, with other metadata."""
    parquet = import_pyarrow("pyarrow.parquet", "a folder of parts")
    for path in paths:
        table = parquet.ParquetFile(path).read()
        if len(table):
            yield table.replace_schema_metadata({METADATA: json.dumps(dict(metadata))})


def write_lance(path: Path, batches: Iterable[Any]) -> None:
    """Write Arrow tables to a Lance table in the folder ``path``, whole or not at all.

    Raises:
        ModuleNotFoundError: If LanceDB is not installed.
    """
    import shutil

    beside = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    iterator = iter(batches)
    first = next(iterator)
    arrow = import_pyarrow("pyarrow", f"output {str(path)!r}")
    made = _lancedb(path).connect(beside).create_table("table", first, mode="create")
    for table in iterator:
        made.add(arrow.table(table))
    if path.is_dir():
        shutil.rmtree(path)
    (beside / "table.lance").rename(path)
    beside.rmdir()


def read_lance(path: Path) -> dict[str, Any]:
    """Read a Lance table that :func:`write_lance` wrote.

    Raises:
        ModuleNotFoundError: If LanceDB is not installed.
        ValueError: If it has no column ``embedding`` of lists of one length.
    """
    return from_arrow(_lancedb(path).connect(path.parent).open_table(path.stem).to_arrow())


def _lancedb(path: Path) -> Any:
    try:
        import lancedb
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{str(path)!r} needs LanceDB; install it with: pip install nl3d[ray]") from None
    return lancedb
