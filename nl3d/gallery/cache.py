"""Vectors of a gallery in blocks: held in memory and kept up to date, or read from the file each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nl3d.embedding.embeddings import rows_per_block
from nl3d.gallery.store import GalleryFile

CACHE_BYTES = 2 * 2**30
"""Memory for vectors, 1,000,000 of 512 numbers; those of larger galleries are read from the file each time."""


class Block(NamedTuple):
    """Some vectors.

    Attributes:
        ids: ``(N,)`` int64, ascending.
        vectors: ``(N, D)`` float32.
        squares: ``(N,)``, their squared lengths.
    """

    ids: Tensor
    vectors: Tensor
    squares: Tensor

    def rows(self, rows: Tensor | slice) -> Block:
        """Return some of them."""
        if isinstance(rows, slice):
            return Block(self.ids[rows], self.vectors[rows], self.squares[rows])
        return Block(*(column.index_select(0, rows) for column in (self.ids, self.vectors, self.squares)))


class VectorCache:
    """Vectors of a gallery, in the order in which they were added.

    Args:
        file: The gallery.
        width: Numbers of a vector.
        cache_bytes: Largest gallery to hold in memory.
    """

    def __init__(self, file: GalleryFile, width: int, cache_bytes: int = CACHE_BYTES) -> None:
        self.file, self.width, self.cache_bytes = file, width, cache_bytes
        self._blocks: list[Block] = []
        self._space: Block | None = None  # memory of the last block, some of it free
        self._last_id = 0
        self._removals: str | None = None

    def blocks(self, condition: str = "", values: Sequence[Any] = ()) -> Iterator[Block]:
        """Yield the vectors that meet a condition, up to 64 MiB at a time, inside of a transaction.

        What other processes added or removed since the last call is read first; what is there already is not.

        Args:
            condition: SQL on a row of ``tracklets``; none if empty.
            values: Values of its question marks.
        """
        count = self.file.value("SELECT count(*) FROM tracklets")
        if 4 * self.width * count > self.cache_bytes:
            self._blocks, self._space, self._last_id = [], None, 0
            where = f"WHERE id IN (SELECT id FROM tracklets WHERE {condition})" if condition else ""
            yield from self._read(where, values)
            return
        self._refresh()
        if not condition:
            yield from self._blocks
            return
        wanted = self._ids(f"SELECT id FROM tracklets WHERE {condition} ORDER BY id", values)
        for block in self._blocks:
            first, last = torch.searchsorted(wanted, block.ids[[0, -1]]).tolist()
            rows = torch.searchsorted(block.ids, wanted[first : last + 1])
            rows = rows[rows < len(block.ids)]
            if len(rows):
                yield block if len(rows) == len(block.ids) else block.rows(rows)

    def _refresh(self) -> None:
        ((last_id, removals),) = self.file.rows(
            "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'tracklets'), "
            "(SELECT value FROM about WHERE key = 'removals')"
        )
        if removals != self._removals:
            left = self._ids("SELECT id FROM tracklets ORDER BY id")
            kept = [
                block.rows(torch.isin(block.ids, left, assume_unique=True).nonzero()[:, 0]) for block in self._blocks
            ]
            self._blocks, self._space = [block for block in kept if len(block.ids)], None
            self._removals = removals
        if (last_id or 0) > self._last_id:
            for block in self._read("WHERE id > ?", (self._last_id,)):
                self._append(block)
            self._last_id = last_id

    def _ids(self, statement: str, values: Sequence[Any] = ()) -> Tensor:
        found = self.file.rows(statement, values)
        return torch.from_numpy(np.fromiter((key for (key,) in found), np.int64, len(found)))

    def _append(self, block: Block) -> None:
        """Copy vectors behind those that are held. Memory that is not written to yet costs nothing."""
        size = rows_per_block(self.width)
        while len(block.ids):
            if self._space is None or len(self._blocks[-1].ids) == size:
                ids = torch.empty(size, dtype=torch.int64)
                self._space = Block(ids, torch.empty(size, self.width), torch.empty(size))
                self._blocks.append(self._space.rows(slice(0)))
            start = len(self._blocks[-1].ids)
            end = min(size, start + len(block.ids))
            for space, column in zip(self._space, block, strict=True):
                space[start:end] = column[: end - start]
            self._blocks[-1] = self._space.rows(slice(end))
            block = block.rows(slice(end - start, None))

    def _read(self, where: str, values: Sequence[Any]) -> Iterator[Block]:
        statement = f"SELECT id, vector FROM vectors {where} ORDER BY id"
        for found in self.file.stream(statement, values, at_once=rows_per_block(self.width)):
            ids, vectors = zip(*found, strict=True)
            numbers = np.frombuffer(bytearray().join(vectors), "<f4").astype(np.float32, copy=False)
            rows = torch.from_numpy(numbers).view(-1, self.width)
            yield Block(torch.tensor(ids), rows, torch.linalg.vecdot(rows, rows))
