"""The exact nearest vectors of a gallery."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nl3d.gallery.cache import Block
from nl3d.metrics.distance import Metric
from nl3d.retrieval.search.nearest import nearest_by_scores, normalise

QUERIES_AT_ONCE = 64


def search(query: Tensor, blocks: Iterable[Block], count: int, metric: Metric) -> tuple[Tensor, Tensor]:
    """Find the nearest vectors of each query.

    One product of a block's vectors with the queries, and their squared lengths, which a block holds, propose
    candidates. Their distances are measured, so the answer is exact. At equal distance the one added first comes first.

    Args:
        query: Vectors to search for.
        blocks: Where to search.
        count: Vectors to find for each.
        metric: How distances are measured.

    Shape:
        - query: ``(num_query, D)`` float32
        - Output: distances, ascending, and ids, both ``(num_query, K)``; K is ``count`` or all there are

    Raises:
        ValueError: If squares of the vectors are not finite.
    """
    distances, ids = query.new_empty(len(query), 0), torch.empty(len(query), 0, dtype=torch.int64)
    for block in blocks:
        found = [_search_block(some, block, count, metric) for some in query.split(QUERIES_AT_ONCE)]
        merged_distances = torch.cat([distances, torch.cat([part[0] for part in found])], 1)
        merged_ids = torch.cat([ids, torch.cat([part[1] for part in found])], 1)
        order = merged_distances.sort(dim=1, stable=True).indices[:, :count]  # earlier blocks come first
        distances, ids = merged_distances.gather(1, order), merged_ids.gather(1, order)
    return distances, ids


def _search_block(query: Tensor, block: Block, count: int, metric: Metric) -> tuple[Tensor, Tensor]:
    epsilon = torch.finfo(query.dtype).eps
    if metric == "cosine":
        lengths = block.squares.sqrt().clamp(min=1e-30)
        scores = (normalise(query) @ block.vectors.T).div_(lengths).mul_(-2)
        slack = query.new_full((len(query), 1), 128 * epsilon)
    else:
        scores = torch.addmm(block.squares, query, block.vectors.T, alpha=-2)
        # what a sum of products may be off by, several times over
        slack = 32 * epsilon * (torch.linalg.vecdot(query, query)[:, None] + block.squares.amax())
    if not (block.squares.isfinite().all() and slack.isfinite().all()):
        raise ValueError("embeddings must have finite squares, got values that are too large; normalise them")
    distances, places = nearest_by_scores(query, block.vectors, scores, slack, count, metric)
    return distances, block.ids[places]
