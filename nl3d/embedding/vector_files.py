"""Files of embeddings by suffix: those of nl3d, and NumPy's, safetensors, tables and ``torch.save`` of anybody."""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nl3d.data.frames.names import require_file
from nl3d.data.labels import parse_label
from nl3d.embedding.table_files import (
    Blocks,
    arrow_batches,
    read_csv,
    read_lance,
    read_parquet,
    table_metadata,
    write_csv,
    write_parquet,
)  # fmt: skip
from nl3d.files import replacing, write_safetensors_rows
from nl3d.unpickle import ALLOWANCE, load_pickled, recognise

VECTORS = ("embeddings", "features")
NUMBERS = ("track_ids", "frame_ranges", "pids", "camids")
TEXTS = ("names", "people", "cameras")
CONTENT = "nl3d embeddings"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BROKEN = (
    SafetensorError, ValueError, EOFError, zipfile.BadZipFile, RuntimeError, KeyError, TypeError, AttributeError,
    IndexError, SyntaxError, tokenize.TokenError, OverflowError, MemoryError, OSError, zlib.error, NotImplementedError,
)  # fmt: skip


class StoredVectors(NamedTuple):
    """Vectors in a safetensors file. They are read rather than mapped, so memory holds one block at a time."""

    path: Path
    dtype: torch.dtype
    first_byte: int
    shape: tuple[int, int]

    def read(self, rows: Sequence[int]) -> Tensor:
        """Read some rows; a range is read at once.

        Raises:
            ValueError: If the file ends before them.
        """
        found = torch.empty(len(rows), self.shape[1], dtype=self.dtype)
        size = self.shape[1] * self.dtype.itemsize
        with self.path.open("rb", buffering=0) as file:
            for row, block in [(rows[0], found)] if isinstance(rows, range) and rows else zip(rows, found, strict=True):
                file.seek(self.first_byte + row * size)
                self._fill(file, block)
        return found

    def _fill(self, file: FileIO, block: Tensor) -> None:
        view = block.view(torch.uint8).numpy().data.cast("B")
        while len(view):
            count = file.readinto(view)
            if not count:
                raise ValueError(f"embeddings file {str(self.path)!r} ends before its last row; it was cut short")
            view = view[count:]


def read_columns(path: str | Path) -> dict[str, Any]:
    """Read a file by its suffix, as arguments of :class:`nl3d.Embeddings`; vectors of safetensors stay in the file.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, would take far more memory than it has bytes, or its entries do not fit.
    """
    path = Path(path)
    if path.suffix.lower() not in FOLDERS or not path.is_dir():
        require_file(path, what="embeddings file", remedy="nl3d embed writes one")
    where = f"embeddings file {str(path)!r}"
    suffix = path.suffix.lower()
    read = READERS.get(suffix)
    if read is None:
        raise ValueError(f"{where} must end in {', '.join(READERS)}")
    if kind := recognise(path) if suffix in RECOGNISED else None:
        raise ValueError(f"{where} must hold embeddings, but is {kind}")
    try:
        found = read(path)
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(f"{where} cannot be read: {reason}") from None
    keys = [key for key in VECTORS if key in found]
    if len(keys) != 1:
        held = ", ".join(repr(key) for key in found if key != "metadata") or "nothing"
        raise ValueError(f"{where} must hold either 'embeddings' or 'features', got {held}")
    columns = {"embeddings": _vectors(found[keys[0]], f"{keys[0]} of {str(path)!r}")}
    count = columns["embeddings"].shape[0]
    for name in (*NUMBERS, *TEXTS):
        if found.get(name) is not None:
            columns[name] = _column(name, found[name], count, f"{name} of {str(path)!r}", "metadata" in found)
    for numbers, labels in (("pids", "people"), ("camids", "cameras")):
        if isinstance(columns.get(numbers), tuple):  # names of people, or numbers beyond int64
            columns.setdefault(labels, columns[numbers])
            del columns[numbers]
    return {**columns, "metadata": found.get("metadata")}


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of embeddings without their vectors; empty if there are none, or they hold no metadata."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return dict(file.metadata() or {})
        return table_metadata(path) if suffix in FOLDERS and path.exists() else {}
    except _BROKEN:
        return {}


def _vectors(values: Any, what: str) -> Any:
    if not isinstance(values, Tensor | StoredVectors):
        array = _as_array(values, what)
        is_number = array.dtype.kind in "iufb" and array.dtype.itemsize <= 8
        values = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False)) if is_number else array
    dtype, shape = values.dtype, tuple(values.shape)
    if len(shape) != 2 or not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype.itemsize < 2:
        raise ValueError(f"{what} must be floating point (N, D), got {dtype} {shape}")
    return values.detach() if isinstance(values, Tensor) else values


def _column(name: str, values: Any, count: int, what: str, own: bool) -> Any:
    """Return numbers as int64, and names and labels as text; labels of others' files are parsed."""
    if own and name in TEXTS and len(values) == count:
        return tuple(values if name == "names" else (str(value) or None for value in values))
    array = _as_array(values, what)
    shape = (count, 2) if name == "frame_ranges" else (count,)
    if array.shape != shape:
        raise ValueError(f"{what} must be {shape}, one row for each embedding, got an array of shape {array.shape}")
    if name == "names":
        return tuple(map(str, array.tolist()))
    if array.dtype.kind in "iu" and (not array.size or int(array.max()) < 2**63):
        return torch.from_numpy(array.astype(np.int64)) if name in NUMBERS else tuple(map(str, array.tolist()))
    if name in ("track_ids", "frame_ranges") or array.dtype.kind not in "iufUSO":
        raise ValueError(f"{what} must be whole numbers, got {array.dtype}")
    try:
        return tuple(_label(value) for value in array.tolist())
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _label(value: Any) -> str | None:
    text = value.decode() if isinstance(value, bytes) else str(value)
    return parse_label(text) if text else None


def _as_array(values: Any, what: str) -> NDArray[Any]:
    try:
        return values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be an array of numbers or text, got {type(values).__name__}") from None


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        keys = {*file.keys()}
        wanted = {*NUMBERS, *TEXTS, *(f"{name}_{part}" for name in TEXTS for part in ("utf8", "ends"))}
        found: dict[str, Any] = {key: file.get_tensor(key) if key in wanted else None for key in sorted(keys)}
    for name in TEXTS:
        if f"{name}_utf8" in found and f"{name}_ends" in found:
            found[name] = unpack_text(found.pop(f"{name}_utf8"), found.pop(f"{name}_ends"))
    if "names" in metadata:  # as nl3d wrote them before, and as others may
        found["names"] = json.loads(metadata.pop("names"))
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    for key in keys.intersection(VECTORS):
        entry = header[key]
        if entry["dtype"] not in _DTYPES or len(entry["shape"]) != 2:
            raise ValueError(f"{key} must be floating point (N, D), got {entry['dtype']} {entry['shape']}")
        first, rows_width = 8 + length + entry["data_offsets"][0], (entry["shape"][0], entry["shape"][1])
        found[key] = StoredVectors(path, _DTYPES[entry["dtype"]], first, rows_width)
    if metadata.pop("content", None) == CONTENT:
        metadata.pop("format", None)
        found["metadata"] = metadata
    return found


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        wanted = [key for key in arrays.files if key in (*VECTORS, *NUMBERS, *TEXTS, "metadata")]
        sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in arrays.zip.infolist()}
        size = sum(sizes[key] for key in wanted)
        if size > 2 * path.stat().st_size + ALLOWANCE:
            raise ValueError(f"its arrays would take {size:,} bytes, far more than the file; write it with np.savez")
        found: dict[str, Any] = {key: arrays[key] if key in wanted else None for key in arrays.files}
    if "metadata" in found:
        metadata = json.loads(str(found.pop("metadata")))
        if metadata.pop("content", None) == CONTENT:
            found["metadata"] = {str(key): str(value) for key, value in metadata.items()}
    return found


def _read_npy(path: Path) -> dict[str, Any]:
    return {"embeddings": np.array(np.load(path, mmap_mode="r", allow_pickle=False))}  # mapping checks the size


def _read_torch(path: Path) -> dict[str, Any]:
    content = load_pickled(path)
    if isinstance(content, Mapping):
        return {str(key): value for key, value in content.items() if key != "metadata"}
    return {"embeddings": content}


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".lance": read_lance,
}
RECOGNISED = (".safetensors", ".npz", ".pt", ".pth")  # whose first bytes other files are told by
FOLDERS = (".parquet", ".lance")  # a folder of parts, as nl3d embed --engine ray writes it
SUFFIXES = (".safetensors", ".npz", ".parquet", ".csv")
"""Suffixes of files that are written; more are read."""


def write_columns(
    path: Path,
    vectors: tuple[tuple[int, int], torch.dtype],
    blocks: Blocks,
    columns: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """Write a file that :func:`read_columns` reads, by its suffix, one block at a time.

    Args:
        path: The file, with one of :data:`SUFFIXES`.
        vectors: Shape ``(N, D)`` and type of the vectors.
        blocks: The vectors, some rows at a time, each block with the place of its first row.
        columns: The other columns.
        metadata: The metadata; a CSV file keeps network and output layer only.

    Raises:
        ModuleNotFoundError: If the suffix is ``.parquet`` and pyarrow is not installed.
    """
    suffix, (shape, dtype) = path.suffix.lower(), vectors
    if suffix == ".csv":
        write_csv(path, blocks, columns, metadata)
    elif suffix == ".parquet":
        write_parquet(path, arrow_batches(blocks, columns, metadata))
    elif suffix == ".npz":
        whole = torch.cat([block for _, block in blocks]) if shape[0] else torch.empty(shape, dtype=dtype)
        _write_npz(path, whole, columns, metadata)
    else:
        header = {**metadata, "content": CONTENT}
        rows = (block for _, block in blocks)
        write_safetensors_rows(path, "embeddings", shape, rows, pack_columns(columns), header, dtype)


def _write_npz(path: Path, vectors: Tensor, columns: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    arrays: dict[str, Any] = {
        name: column.numpy() if isinstance(column, Tensor) else np.array([text or "" for text in column], dtype=str)
        for name, column in columns.items()
        if column is not None
    }
    about = np.array(json.dumps({**metadata, "content": CONTENT}))
    with replacing(path) as unfinished:
        np.savez(unfinished, embeddings=vectors.numpy(), metadata=about, **arrays)


def pack_columns(columns: Mapping[str, Any]) -> dict[str, Tensor]:
    """Turn columns of :class:`nl3d.Embeddings` into tensors; labels that are their numbers are left out.

    Text becomes its bytes in UTF-8, one after another (``names_utf8``), and where each ends (``names_ends``), so its
    size is not limited by the header of safetensors. A label that is not known is empty.
    """
    tensors = {name: columns[name] for name in NUMBERS if columns.get(name) is not None}
    numbers = {"people": columns.get("pids"), "cameras": columns.get("camids")}
    for name in TEXTS:
        texts = columns.get(name)
        known = numbers.get(name)
        if texts is None or (known is not None and [*texts] == [*map(str, known.tolist())]):
            continue
        pieces = [(text or "").encode("utf-8", "surrogatepass") for text in texts]
        tensors[f"{name}_utf8"] = torch.frombuffer(bytearray(b"".join(pieces) or b"\0"), dtype=torch.uint8)
        tensors[f"{name}_ends"] = torch.tensor([len(piece) for piece in pieces], dtype=torch.int64).cumsum(0)
    return tensors


def unpack_text(utf8: Tensor, ends: Tensor) -> list[str]:
    """Return the texts that :func:`pack_columns` packed.

    Raises:
        ValueError: If the ends do not ascend or reach beyond the bytes.
    """
    if utf8.dtype != torch.uint8 or ends.dtype != torch.int64 or utf8.ndim != 1 or ends.ndim != 1:
        raise ValueError(f"text must be uint8 with int64 ends, got {utf8.dtype} and {ends.dtype}")
    content, places = utf8.numpy().tobytes(), [0, *ends.tolist()]
    if places != sorted(places) or places[-1] > len(content):
        raise ValueError("ends of texts must ascend and lie within their bytes")
    return [content[start:stop].decode("utf-8", "surrogatepass") for start, stop in pairwise(places)]
