"""The exact nearest rows of a gallery, in memory or on the disk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nl3d.embedding.stored import Vectors, blocks_of
from nl3d.metrics import pairwise_distance
from nl3d.metrics.distance import Metric

QUERIES_AT_ONCE = 1024


def nearest(
    query: Tensor, gallery: Vectors, count: int, *, metric: Metric, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find the nearest gallery rows of each query.

    The gallery is gone through once, a block at a time, so that memory depends on neither its size nor, but for the
    answer, on the number of queries.

    Args:
        query: Vectors to search for.
        gallery: Where to search.
        count: Rows to find for each, no more than there are.
        metric: How distances are measured.
        own: Row of each query in the gallery, to be left out.

    Shape:
        - query: ``(num_query, D)``
        - own: ``(num_query,)``
        - Output: distances, ascending, and rows, both ``(num_query, count)``
    """
    distances = torch.full((len(query), count), torch.inf)
    rows = torch.full((len(query), count), -1, dtype=torch.int64)
    for first, block in blocks_of(gallery):
        for start in range(0, len(query), QUERIES_AT_ONCE):
            some = slice(start, start + QUERIES_AT_ONCE)
            distmat: Any = pairwise_distance(query[some], block, metric=metric)
            if own is not None:
                inside = (own[some] >= first) & (own[some] < first + len(block))
                distmat[inside, own[some][inside] - first] = torch.inf
            here = distmat.topk(min(count, len(block)), largest=False)
            best = torch.cat([distances[some], here.values], dim=1).topk(count, largest=False)
            distances[some] = best.values
            rows[some] = torch.cat([rows[some], here.indices + first], dim=1).gather(1, best.indices)
    return distances, rows
