"""Distances between two sets of embeddings: as a matrix, or in rows that only keep the order."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nl3d.metrics.inputs import Array, as_embeddings, check_choice

Metric: TypeAlias = Literal["euclidean", "cosine"]


@torch.no_grad()
def pairwise_distance(query: Array, gallery: Array, *, metric: Metric = "euclidean") -> Array:
    """Distance of every query to every gallery row.

    Computed with one matrix product in float32 (float64 for float64 input). For Euclidean distances a point of the
    gallery's middle is subtracted from both first, which keeps digits where all rows lie far from the origin; rows in
    several clouds far apart are multiplied in float64. Equal rows come out near zero, not exactly zero.

    Args:
        query: Embeddings, as a tensor or an array.
        gallery: Embeddings of the same width, on the same device.
        metric: ``"euclidean"``, or ``"cosine"`` for one minus the cosine; a row of zeros has the cosine 0 to all.

    Shape:
        - query: ``(num_query, D)``
        - gallery: ``(num_gallery, D)``
        - Output: ``(num_query, num_gallery)``, a NumPy array if ``query`` is one, else a tensor

    Raises:
        TypeError: If one of them is not a floating-point tensor or array.
        ValueError: If shapes or devices do not fit, if a value is NaN, infinite or so large that its square is, or if
            ``metric`` is unknown.

    Example:
        >>> pairwise_distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        tensor([[5., 1.]])
    """
    rows = DistanceRows(*as_embeddings(query, gallery), metric)
    distmat = rows.squared(0, len(rows.query))
    distmat = (distmat.sqrt_() if metric == "euclidean" else distmat.div_(2)).to(rows.dtype)
    return distmat.numpy(force=True) if isinstance(query, np.ndarray) else distmat


SAMPLE = 32, 256  # queries and gallery rows that are measured exactly to choose the precision
FAR = 100.0  # squared norm over squared nearest distance beyond which float32 loses more than four digits of the latter


class DistanceRows:
    """Rows of the distance matrix, computed on demand.

    ``rows(start, stop)`` returns, for these queries, numbers in the order of the distances without the term that is
    constant along a row: it costs one matrix product. :meth:`squared` returns squared Euclidean distances; under the
    cosine metric embeddings are normalised first, so that these are twice the cosine distance.
    """

    def __init__(self, query: Tensor, gallery: Tensor, metric: str) -> None:
        check_choice(metric, ("euclidean", "cosine"), name="metric")
        self.dtype = query.dtype
        if metric == "cosine":
            query, gallery = _normalise(query), _normalise(gallery)
        else:
            # Any point between the rows serves. A median consists of numbers that the rows hold, so integers stay
            # integers, and exact ties exact.
            centre = gallery[:: max(1, len(gallery) // 256)].median(0).values
            has_double = query.dtype == torch.float32 and query.device.type != "mps"
            if has_double and _lies_in_far_clouds(query, gallery, centre):
                query, gallery, centre = query.double(), gallery.double(), centre.double()
            query, gallery = query - centre, gallery - centre
        self.query, self.gallery = query, gallery
        self.query_squares = query.square().sum(1)
        # Normalised rows have one length, up to rounding that would only blur the order.
        self.gallery_squares = gallery.square().sum(1) if metric == "euclidean" else gallery.new_zeros(len(gallery))
        self.metric = metric
        for squares, name in ((self.query_squares, "query"), (self.gallery_squares, "gallery")):
            if not squares.isfinite().all():
                raise ValueError(f"{name} must have finite squares, got values that are too large; normalise them")

    def __call__(self, start: int, stop: int) -> Tensor:
        with torch.autocast(self.query.device.type, enabled=False):
            return torch.addmm(self.gallery_squares, self.query[start:stop], self.gallery.T, alpha=-2)

    def squared(self, start: int, stop: int) -> Tensor:
        if self.metric == "cosine":
            return self(start, stop).add_(2).clamp_(min=0)
        return self(start, stop).add_(self.query_squares[start:stop, None]).clamp_(min=0)


def _lies_in_far_clouds(query: Tensor, gallery: Tensor, centre: Tensor) -> bool:
    """Whether, for some sampled query, the nearest gallery row is much closer than the centre."""
    rows, others = (
        values[:: max(1, len(values) // count)][:count].double() - centre
        for values, count in zip((query, gallery), SAMPLE, strict=True)
    )
    squared = torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist").square_()
    nearest = squared.masked_fill_(squared == 0, torch.inf).amin(1)  # equal rows need no digits
    return bool((rows.square().sum(1) > FAR * nearest).any())


def _normalise(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows / rows.abs().amax(1, keepdim=True).clamp(min=1e-30), dim=1)
