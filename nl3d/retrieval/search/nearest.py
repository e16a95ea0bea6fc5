"""The exact nearest rows of a gallery, in memory or in its file."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nl3d.embedding.embeddings import Embeddings
from nl3d.metrics.distance import DistanceRows, Metric

QUERIES_AT_ONCE = 1024
SPARE = 16  # more candidates than asked for, to be measured
MEASURED_BYTES = 64 * 2**20


def nearest(
    query: Tensor, gallery: Embeddings, count: int, *, metric: Metric, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find the nearest gallery rows of each query.

    The gallery is read once, block by block, so memory depends on neither its size nor, apart from the answer, on the
    number of queries. A matrix product proposes candidates, which :func:`measure` measures, so distances are exact
    however far from zero the vectors lie. Rows at equal distance stand in the order of the gallery.

    Shape:
        - query: ``(num_query, D)``
        - own: ``(num_query,)``
        - Output: distances, ascending, and rows, both ``(num_query, count)``
    """
    distances = query.new_full((len(query), count), torch.inf)
    rows = torch.full((len(query), count), -1, dtype=torch.int64)
    for first, block in gallery.blocks():
        dtype = torch.promote_types(query.dtype, block.dtype)
        distances, block = distances.to(dtype), block.to(dtype)
        for start in range(0, len(query), QUERIES_AT_ONCE):
            some = slice(start, start + QUERIES_AT_ONCE)
            without = None if own is None else own[some] - first
            found = _nearest_in_block(query[some].to(dtype), block, count, metric, without)
            found_rows = torch.where(found[1] < 0, -1, found[1] + first)
            merged = torch.cat([distances[some], found[0]], 1), torch.cat([rows[some], found_rows], 1)
            # earlier blocks come first, so a stable sort keeps the order of the gallery
            order = merged[0].sort(dim=1, stable=True).indices[:, :count]
            distances[some], rows[some] = (values.gather(1, order) for values in merged)
    return distances, rows


def _nearest_in_block(
    query: Tensor, block: Tensor, count: int, metric: Metric, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Find the nearest rows of one block: distances and places, infinite and -1 where there are no more."""
    product = DistanceRows(query, block, metric)
    squared = product.squared(0, len(query))
    # what a sum of products may be off by, several times over
    slack = 32 * torch.finfo(squared.dtype).eps * (product.query_squares[:, None] + product.gallery_squares.amax())
    if metric == "cosine":
        slack = slack + 64 * torch.finfo(squared.dtype).eps
    if own is not None:
        inside = (own >= 0) & (own < len(block))
        squared[inside, own[inside]] = torch.inf
    return nearest_by_scores(query, block, squared, slack, count, metric)


def nearest_by_scores(
    query: Tensor, block: Tensor, squared: Tensor, slack: Tensor, count: int, metric: Metric
) -> tuple[Tensor, Tensor]:
    """Find the nearest rows of a block by approximate scores; what may be among them is measured.

    Args:
        query: Vectors to search for.
        block: Vectors to search in.
        squared: Squared distances, up to a constant per query; infinite for rows that are left out.
        slack: Largest error of a score.
        count: Rows to find for each query.
        metric: How distances are measured.

    Shape:
        - query: ``(num_query, D)``
        - block: ``(N, D)``
        - squared: ``(num_query, N)``
        - slack: ``(num_query, 1)``
        - Output: distances, ascending, and places, both ``(num_query, K)``, infinite and -1 where there are no more
    """
    proposed = squared.topk(min(count + SPARE, len(block)), largest=False)
    limit = proposed.values[:, min(count, len(block)) - 1 :][:, :1] + 2 * slack
    places = proposed.indices.masked_fill(proposed.values.isinf(), -1)
    distances, places = order_by_distance(query, block, places, count, metric)
    # where more rows than were proposed may be as near as the last one found, all of them are measured
    if proposed.indices.shape[1] < len(block):
        for row in (proposed.values[:, -1:] <= limit).squeeze(1).nonzero().flatten().tolist():
            near = ((squared[row] <= limit[row]) & squared[row].isfinite()).nonzero().flatten()[None]
            distances[row], places[row] = (
                found[0] for found in order_by_distance(query[row : row + 1], block, near, count, metric)
            )
    return distances, places


def order_by_distance(
    query: Tensor, gallery: Tensor, places: Tensor, count: int, metric: Metric
) -> tuple[Tensor, Tensor]:
    """Measure from each query to its candidates and return the nearest; at equal distance the first of the gallery.

    Shape:
        - query: ``(num_query, D)``
        - places: ``(num_query, K)``
        - Output: distances and rows, both ``(num_query, min(count, K))``, infinite and -1 where there are no more
    """
    places = places.sort(dim=1).values
    measured = query.new_empty(places.shape)
    step = max(1, MEASURED_BYTES // (query.element_size() * query.shape[1] * places.shape[1]))
    for start in range(0, len(query), step):
        some = slice(start, start + step)
        measured[some] = measure(query[some, None], gallery[places[some].clamp(min=0)], metric)
    ascending = measured.masked_fill_(places < 0, torch.inf).sort(dim=1, stable=True)
    return ascending.values[:, :count], places.gather(1, ascending.indices[:, :count])


def measure(query: Tensor, gallery: Tensor, metric: Metric) -> Tensor:
    """Return distances of vectors by their differences, which keeps digits that a matrix product loses.

    Half the squared difference of normalised vectors is one minus their cosine. A vector of zeros has the cosine 0 to
    all others.

    Shape:
        - query: ``(..., D)``
        - gallery: ``(..., D)``
        - Output: ``(...)``
    """
    if metric == "euclidean":
        return torch.linalg.vector_norm(gallery - query, dim=-1)
    query, gallery = normalise(query), normalise(gallery)
    zeros = (query == 0).all(-1) | (gallery == 0).all(-1)
    return ((gallery - query).square().sum(-1) / 2).masked_fill_(zeros, 1)


def normalise(rows: Tensor) -> Tensor:
    """Scale vectors to length one, without overflow; zeros stay."""
    return F.normalize(rows / rows.abs().amax(-1, keepdim=True).clamp(min=1e-30), dim=-1)
