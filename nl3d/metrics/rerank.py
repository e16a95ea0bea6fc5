"""Re-ranking by k-reciprocal neighbours (Zhong et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nl3d.metrics.distance import DistanceRows, Metric


@dataclass(frozen=True, kw_only=True)
class KReciprocal:
    """Settings of k-reciprocal re-ranking, for :func:`evaluate`.

    Two rows are alike if each is among the k nearest of the other, and if their sets of such neighbours overlap. The
    distance that ranks is ``(1 - original_weight) * jaccard + original_weight * original``.

    Source: Zhong et al. 2017, arXiv:1701.08398, Sec. 3. Where it leaves room, this does what published figures were
    computed with: queries and gallery together are the neighbours, a row is the first of its own, with k more; the
    original distance is squared and divided by the row's largest; the k-reciprocal vectors are normalised to sum one.
    Under the cosine metric, the same on normalised embeddings.

    Memory grows with the number of rows times the neighbours of one, not with its square. The gallery's junk is
    removed before; an identity under the query's own camera still is a neighbour.

    Args:
        k1: Neighbours of which the reciprocal ones are kept.
        k2: Rows, itself included, over which a row's vector is averaged (local query expansion); 1 leaves it out.
        original_weight: Weight of the original distance, the paper's lambda.

    Raises:
        ValueError: If ``k1`` or ``k2`` is below 1, or the weight not in [0, 1].

    Example:
        >>> query, gallery = torch.randn(4, 8), torch.randn(9, 8)
        >>> KReciprocal(k1=3, k2=2).rows(query, gallery)(0, 4).shape
        torch.Size([4, 9])
    """

    k1: int = 20
    k2: int = 6
    original_weight: float = 0.3

    def __post_init__(self) -> None:
        for name in ("k1", "k2"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.original_weight <= 1:
            raise ValueError(f"original_weight must be from 0 to 1, got {self.original_weight}")

    def rows(self, query: Tensor, gallery: Tensor, *, metric: Metric = "euclidean") -> Callable[[int, int], Tensor]:
        """A function that gives the new distances of queries ``start`` to ``stop``, each call ``(stop - start, G)``."""
        num_query = len(query)
        everyone = DistanceRows(query_and_gallery := torch.cat([query, gallery]), query_and_gallery, metric)
        nearest, farthest = _neighbours(everyone, max(self.k1 + 1, self.k2))
        vectors = _reciprocal_vectors(everyone, nearest[:, : self.k1 + 1], farthest, round(self.k1 / 2) + 1)
        if self.k2 > 1:
            vectors = _average_over(vectors, nearest[:, : self.k2])
        overlap = _Overlap(vectors, num_query)

        def distances(start: int, stop: int) -> Tensor:
            shared = overlap(start, stop)  # sum of min, of two vectors that each sum to one
            jaccard = 1 - shared / (2 - shared)
            original = everyone.squared(start, stop)[:, num_query:] / farthest[start:stop, None]
            return torch.lerp(jaccard, original, self.original_weight)

        return distances


class _Vectors(NamedTuple):
    """Sparse vectors end to end: how many entries each has, their columns and their values."""

    counts: Tensor
    members: Tensor
    values: Tensor

    @property
    def starts(self) -> Tensor:
        return self.counts.cumsum(0) - self.counts


def _neighbours(everyone: DistanceRows, count: int) -> tuple[Tensor, Tensor]:
    """Nearest rows of every row, itself first ``(N, count)``, and its largest squared distance ``(N,)``."""
    total = len(everyone.query)
    nearest, farthest = [], []
    for start, stop in _chunks(total, total):
        squared = everyone.squared(start, stop)
        farthest.append(squared.amax(1))
        squared[torch.arange(stop - start), torch.arange(start, stop)] = -1
        nearest.append(squared.topk(min(count, total), dim=1, largest=False).indices)
    return torch.cat(nearest), torch.cat(farthest).clamp(min=torch.finfo(everyone.query.dtype).tiny)


def _reciprocal_vectors(everyone: DistanceRows, nearest: Tensor, farthest: Tensor, half: int) -> _Vectors:
    """Vectors V: ``exp(-distance)`` on the expanded reciprocal neighbours, each summing to one."""
    total, width = nearest.shape
    half_nearest = nearest[:, :half]
    mutual, half_mutual = _are_mutual(nearest), _are_mutual(half_nearest)
    counts, members, weights = [], [], []
    for start, stop in _chunks(total, width * width * half + width * half * everyone.query.shape[1] // 4):
        mine = nearest[start:stop].masked_fill(~mutual[start:stop], -1)  # R(p, k): (C, k), -1 for none
        theirs = half_nearest[mine].masked_fill(
            ~half_mutual[mine] | (mine < 0)[..., None], -1
        )  # R(q, k / 2): (C, k, h)
        shared = ((theirs[..., None] == mine[:, None, None, :]).any(-1) & (theirs >= 0)).sum(-1)  # (C, k)
        joins = 3 * shared >= 2 * (theirs >= 0).sum(-1)
        union = torch.cat([mine, theirs.masked_fill(~joins[..., None], -1).flatten(1)], dim=1).sort(1).values
        is_new = (union >= 0) & (union != union.roll(1, 1))
        is_new[:, 0] = union[:, 0] >= 0
        local, place = is_new.nonzero(as_tuple=True)
        owner, member = local + start, union[local, place]
        squared = (everyone.query[owner] - everyone.query[member]).square().sum(1)
        weight = torch.exp(-squared / farthest[owner])
        sums = weight.new_zeros(stop - start).index_add_(0, local, weight)
        counts.append(is_new.sum(1))
        members.append(member)
        weights.append(weight / sums[local])
    return _Vectors(torch.cat(counts), torch.cat(members), torch.cat(weights))


def _are_mutual(nearest: Tensor) -> Tensor:
    """Whether a row is among the nearest of each of its nearest, ``(N, k)``."""
    parts = []
    for start, stop in _chunks(len(nearest), nearest.shape[1] ** 2):
        own = torch.arange(start, stop, device=nearest.device)[:, None, None]
        parts.append((nearest[nearest[start:stop]] == own).any(2))
    return torch.cat(parts)


def _average_over(vectors: _Vectors, nearest: Tensor) -> _Vectors:
    """Mean of the vectors of each row's nearest."""
    total, count = nearest.shape
    counts, members, values = [], [], []
    for start, stop in _chunks(total, count * int(vectors.counts.max())):
        sources = nearest[start:stop].flatten()
        source, place = _expand_ranges(vectors.starts[sources], vectors.counts[sources])
        keys, order = ((source // count) * total + vectors.members[place]).sort(stable=True)
        distinct, where = keys.unique_consecutive(return_inverse=True)
        summed = vectors.values.new_zeros(len(distinct)).index_add_(0, where, vectors.values[place][order])
        counts.append(torch.bincount(distinct // total, minlength=stop - start))
        members.append(distinct % total)
        values.append(summed / count)
    return _Vectors(torch.cat(counts), torch.cat(members), torch.cat(values))


class _Overlap:
    """Sum of the elementwise minimum of a query's vector and a gallery row's, visiting shared neighbours only."""

    def __init__(self, vectors: _Vectors, num_query: int) -> None:
        total = len(vectors.counts)
        self.num_gallery = total - num_query
        self.vectors = vectors
        # The gallery's part by column: who has this neighbour, and how much.
        split = int(vectors.counts[:num_query].sum())
        members = vectors.members[split:]
        holders = torch.repeat_interleave(
            torch.arange(self.num_gallery, device=members.device), vectors.counts[num_query:]
        )
        by_column = members.argsort(stable=True)
        column_counts = torch.bincount(members, minlength=total)
        self.columns = _Vectors(column_counts, holders[by_column], vectors.values[split:][by_column])

    def __call__(self, start: int, stop: int) -> Tensor:
        row, entry = _expand_ranges(self.vectors.starts[start:stop], self.vectors.counts[start:stop])
        column = self.vectors.members[entry]
        pair, place = _expand_ranges(self.columns.starts[column], self.columns.counts[column])
        smaller = torch.minimum(self.vectors.values[entry][pair], self.columns.values[place])
        shared = smaller.new_zeros((stop - start) * self.num_gallery)
        shared.index_add_(0, row[pair] * self.num_gallery + self.columns.members[place], smaller)
        return shared.view(stop - start, self.num_gallery)


def _chunks(total: int, cost: int) -> list[tuple[int, int]]:
    """Ranges of rows whose work, ``cost`` elements per row, fits in a few tens of MiB."""
    size = max(1, 2**23 // max(1, cost))
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def _expand_ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Spell out the ranges ``starts[i] ... starts[i] + lengths[i] - 1``.

    Shape:
        - starts, lengths: ``(N,)``
        - Output: for every element which range it is of, and its value, each ``(lengths.sum(),)``
    """
    ends = lengths.cumsum(0)
    total = int(lengths.sum())
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths, output_size=total)
    return owner, torch.arange(total, device=lengths.device) + (starts - ends + lengths)[owner]
