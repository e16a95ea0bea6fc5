"""Embeddings that stay in their file and are read a block of rows at a time, for sets larger than memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nl3d.embedding.embeddings import Embeddings

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BLOCK_BYTES = 64 * 2**20


class StoredEmbeddings:
    """A file of :class:`Embeddings` of which everything but the vectors is in memory.

    Attributes are those of :class:`Embeddings`, without ``embeddings``: :meth:`blocks` and :meth:`vectors` read them.
    They are read plainly rather than mapped, so that what is resident at any time is one block.

    Args:
        path: A file that :meth:`Embeddings.save` wrote; vectors of half precision are taken too.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no safetensors file, or holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        where = f"embeddings file {str(path)!r}"
        if not self.path.is_file():
            raise FileNotFoundError(f"{where} does not exist; nl3d embed writes it")
        self.stamp = self.path.stat()  # before it is read: a change in between must not look like none
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys() if name != "embeddings"}
        except SafetensorError as error:
            raise ValueError(f"{where} is no safetensors file: {error}") from error
        with self.path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        metadata: dict[str, str] = dict(header.get("__metadata__", {}))
        missing = {"embeddings", "track_ids", "frame_ranges"} - set(header)
        if missing or "names" not in metadata:
            raise ValueError(
                f"{where} must be written by nl3d embed, but it lacks {', '.join(sorted(missing) or ['names'])}"
            )
        names = tuple(json.loads(metadata.pop("names")))
        for key in ("format", "content"):
            metadata.pop(key, None)
        entry = header["embeddings"]
        if entry["dtype"] not in DTYPES or len(entry["shape"]) != 2:
            raise ValueError(
                f"{where} must hold floating-point embeddings (N, D), got {entry['dtype']} {entry['shape']}"
            )
        self._dtype = DTYPES[entry["dtype"]]
        self._first_byte = 8 + length + entry["data_offsets"][0]
        self.shape: tuple[int, int] = (entry["shape"][0], entry["shape"][1])
        try:  # by its rules for everything but the vectors, which have no width here
            self._rest = Embeddings(torch.empty(self.shape[0], 0), names=names, metadata=metadata, **tensors)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
        self.names, self.metadata = names, metadata
        self.track_ids, self.frame_ranges = self._rest.track_ids, self._rest.frame_ranges
        self.pids, self.camids = self._rest.pids, self._rest.camids

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Give the place of a block's first row, and its rows in float32, one block after another.

        Raises:
            ValueError: If a value is NaN or infinite.
        """
        step = rows_at_once(self.shape[1])
        with self.path.open("rb", buffering=0) as stream:
            for start in range(0, len(self), step):
                block = torch.empty(min(step, len(self) - start), self.shape[1], dtype=self._dtype)
                stream.seek(self._first_byte + start * block[:1].nbytes)
                _read_into(stream, block)
                yield start, self._checked(block, range(start, start + len(block)))

    def vectors(self, rows: Tensor) -> Tensor:
        """Read some rows, in the order given, in float32.

        Raises:
            ValueError: If a value is NaN or infinite.
        """
        wanted, order = rows.unique(return_inverse=True)  # sorted, so that the file is walked once
        found = torch.empty(len(wanted), self.shape[1], dtype=self._dtype)
        with self.path.open("rb", buffering=0) as stream:
            for place, row in enumerate(wanted.tolist()):
                stream.seek(self._first_byte + row * found[:1].nbytes)
                _read_into(stream, found[place])
        found = self._checked(found, wanted.tolist())
        return found if torch.equal(wanted, rows) else found[order]

    def select(self, names: Sequence[str]) -> Embeddings:
        """Load the named tracklets, in the order given.

        Raises:
            ValueError: If a name is unknown.
        """
        chosen = self._rest.select(names)
        return replace(chosen, embeddings=self.vectors(rows_named(self, names)))

    def _checked(self, block: Tensor, rows: Sequence[int]) -> Tensor:
        block = block.float()
        if block.numel() and not torch.stack(block.aminmax()).isfinite().all():  # takes no memory of the block's size
            broken = rows[int((~torch.isfinite(block)).any(dim=1).nonzero()[0])]
            raise ValueError(
                f"embeddings file {str(self.path)!r} must be finite, got NaN or infinite values for tracklet "
                f"{self.names[broken]!r}"
            )
        return block


Vectors: TypeAlias = Embeddings | StoredEmbeddings


def rows_at_once(width: int) -> int:
    """Tell how many rows of float32 make a block."""
    return max(1, BLOCK_BYTES // (4 * max(1, width)))


def blocks_of(source: Vectors) -> Iterator[tuple[int, Tensor]]:
    """Give the rows of either kind, a block after another, each with the place of its first row."""
    if isinstance(source, StoredEmbeddings):
        yield from source.blocks()
        return
    for start in range(0, len(source), step := rows_at_once(source.embeddings.shape[1])):
        yield start, source.embeddings[start : start + step]


def all_vectors(source: Vectors) -> Tensor:
    """Give all rows of either kind, which memory must hold."""
    if isinstance(source, Embeddings):
        return source.embeddings
    vectors = torch.empty(source.shape)
    for start, block in source.blocks():
        vectors[start : start + len(block)] = block
    return vectors


def vectors_of(source: Vectors, rows: Tensor) -> Tensor:
    """Give some rows of either kind, in the order given."""
    return source.vectors(rows) if isinstance(source, StoredEmbeddings) else source.embeddings[rows]


def width_of(source: Vectors) -> int:
    """Tell how many numbers a row has, of either kind."""
    return source.shape[1] if isinstance(source, StoredEmbeddings) else source.embeddings.shape[1]


def rows_named(source: Vectors, names: Sequence[str]) -> Tensor:
    """Tell at which rows these tracklets are, in the order given."""
    places = {name: place for place, name in enumerate(source.names)}
    return torch.tensor([places[name] for name in names], dtype=torch.int64)


def _read_into(stream: FileIO, rows: Tensor) -> None:
    view = rows.view(torch.uint8).numpy().data.cast("B")
    while len(view):
        count = stream.readinto(view)
        if not count:
            raise ValueError("embeddings file ends before its last row; it was cut short while it was read")
        view = view[count:]
