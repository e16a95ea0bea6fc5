"""Recall of an index: its answers beside the exact ones, in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nl3d.embedding.embeddings import Embeddings
from nl3d.retrieval.rank import prepare
from nl3d.retrieval.search.index import GalleryIndex
from nl3d.retrieval.search.nearest import nearest


class Recall(NamedTuple):
    """Share of the exact answer that an index finds.

    Attributes:
        recall: Share of the exact nearest rows that the index found, a fraction in [0, 1].
        top: Nearest rows of each query that were compared.
        num_query: Queries that were compared.
        index_seconds: Time of the index.
        exact_seconds: Time of the exact search.
    """

    recall: float
    top: int
    num_query: int
    index_seconds: float
    exact_seconds: float

    def __str__(self) -> str:
        return (
            f"recall@{self.top} {100 * self.recall:.1f} % of the exact answer on {self.num_query} queries; "
            f"{self.index_seconds:.3g} s with the index, {self.exact_seconds:.3g} s without"
        )


def measure_recall(
    query: Embeddings | str | Path,
    index: GalleryIndex,
    *,
    top: int = 10,
    names: Sequence[str] | None = None,
    sample: int = 100,
) -> Recall:
    """Compare an index with exact search, for queries spread evenly over those given.

    A gallery row that stands in for another at the same distance counts as missed.

    Args:
        query: Embeddings, or a file of them.
        index: The index.
        top: Nearest rows of each query to compare, at most.
        names: Query tracklets to draw from; all, if left out.
        sample: Queries to compare, at most.

    Raises:
        ValueError: If ``sample`` or ``top`` is below 1, or query and index do not fit.
    """
    if sample < 1:
        raise ValueError(f"sample must be at least 1, got {sample}")
    task = prepare(query, index, top=top, metric=None, names=names)
    drawn = [place * len(task.query) // sample for place in range(sample)] if sample < len(task.query) else slice(None)
    vectors, own = task.vectors[drawn], None if task.own is None else task.own[drawn]
    started = time.perf_counter()
    _, found = index.search(vectors, task.count, own=own)
    searched = time.perf_counter()
    _, expected = nearest(vectors, task.gallery, task.count, metric=task.metric, own=own)
    ended = time.perf_counter()
    hits = (expected[:, :, None] == found[:, None, :]).any(2)
    return Recall(float(hits.double().mean()), task.count, len(vectors), searched - started, ended - searched)
