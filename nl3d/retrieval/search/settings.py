"""Settings of an index, with defaults from the size of the gallery."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["flat", "hnsw", "ivfpq"]

KINDS = ("flat", "hnsw", "ivfpq")
FLAT_UP_TO = 100_000  # rows that are compared one by one in milliseconds
CODE_VALUES = 256  # of one byte of a code; each is learnt from at least one row
ROWS_PER_LIST = 39  # for training; k-means of fewer is poor
MOST_TRAINING_BYTES = 512 * 2**20
MOST_PQ_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Settings that are fixed once an index is built; :meth:`resolved` chooses those that are None.

    Args:
        kind: ``"flat"`` compares every row, ``"hnsw"`` walks a graph of neighbours, ``"ivfpq"`` compares codes of a
            few bytes in the nearest of many lists. None is flat up to 100,000 rows, then ivfpq.
        nlist: Lists of ivfpq.
        pq_bytes: Bytes per row in ivfpq; must divide the width.
        hnsw_m: Links per row in hnsw.
        ef_construction: Candidates that hnsw considers to link a new row.
    """

    kind: Kind | None = None
    nlist: int | None = None
    pq_bytes: int | None = None
    hnsw_m: int | None = None
    ef_construction: int | None = None

    def resolved(self, rows: int, width: int) -> IndexSettings:
        """Fill in what is None.

        Raises:
            ValueError: If a setting is out of range, belongs to another kind, or the gallery is too small for the kind.
        """
        kind: Kind = self.kind or ("flat" if rows <= FLAT_UP_TO else "ivfpq")
        if kind not in KINDS:
            raise ValueError(f"index kind must be one of {', '.join(KINDS)}, got {kind!r}")
        refuse_foreign(kind, nlist=self.nlist, pq_bytes=self.pq_bytes)
        refuse_foreign(kind, hnsw_m=self.hnsw_m, ef_construction=self.ef_construction)
        if kind == "flat":
            return IndexSettings(kind=kind)
        if kind == "hnsw":
            links = 32 if self.hnsw_m is None else self.hnsw_m
            if links < 2:
                raise ValueError(f"hnsw_m must be at least 2, got {links}")
            effort = max(2 * links, 80) if self.ef_construction is None else self.ef_construction
            return IndexSettings(kind=kind, hnsw_m=links, ef_construction=effort)
        if rows < CODE_VALUES:
            raise ValueError(
                f"index kind 'ivfpq' needs a gallery of {CODE_VALUES} tracklets or more, got {rows}; use flat"
            )
        most = max(1, training_rows(rows, width) // ROWS_PER_LIST)
        nlist = min(round(2 * sqrt(rows)), most) if self.nlist is None else self.nlist
        if nlist > most:
            raise ValueError(
                f"nlist must be at most {most}, so that each list is trained on {ROWS_PER_LIST} rows, got {nlist}"
            )
        size = _divisor(width) if self.pq_bytes is None else self.pq_bytes
        if width % size:
            raise ValueError(f"pq_bytes must divide the width of the embeddings, {width}, got {size}")
        return IndexSettings(kind=kind, nlist=nlist, pq_bytes=size)

    def given(self) -> dict[str, Any]:
        """Return the settings that are not None."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        """Return text such as ``ivfpq (nlist 2828, pq_bytes 64)``."""
        rest = ", ".join(f"{key} {value}" for key, value in self.given().items() if key != "kind")
        return f"{self.kind} ({rest})" if rest else f"{self.kind}"


def training_rows(rows: int, width: int) -> int:
    """Return the number of rows that an index of lists may be trained on."""
    return min(rows, max(CODE_VALUES, MOST_TRAINING_BYTES // (4 * width)))


def refuse_foreign(kind: str | None, **settings: int | None) -> None:
    """Refuse settings of another kind, and those below 1."""
    for name, value in settings.items():
        owner = "hnsw" if name in ("hnsw_m", "ef_construction", "ef_search") else "ivfpq"
        if value is not None and kind != owner:
            raise ValueError(f"{name} is a setting of {owner}, got an index of kind {kind!r}")
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _divisor(width: int) -> int:
    return next(size for size in range(min(width, MOST_PQ_BYTES), 0, -1) if width % size == 0)
