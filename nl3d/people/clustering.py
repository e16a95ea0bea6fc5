"""Average linkage that never joins what cannot be one person, without a matrix of distances."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nl3d.people.constraints import Constraints

EXACT_UP_TO = 5000
"""Up to this many tracklets, distances are computed in float64."""
CANDIDATES = 16
PAIRS_AT_ONCE = 2**22
CELLS_AT_ONCE = 2**26


def cluster(vectors: Tensor, constraints: Constraints, cut: float, start: NDArray[np.int64] | None = None) -> Clusters:
    """Join tracklets by average linkage up to a cut, with cannot-links.

    The linkage of clusters A and B is the root of the mean squared distance of their members, times the fourth root of
    the harmonic mean of their sizes ``2ab / (a + b)``: two large clusters must be nearer than two tracklets, since more
    pairs agree. Two clusters with a pair that cannot be one person are never joined.

    The mean squared distance is that of the centres plus both variances, so that no matrix of distances is needed. The
    linkage is reducible: a joined cluster is no nearer to a third than the nearer of its parts was. Clusters that are
    each other's nearest may therefore be joined at once, with the same result as joining the nearest pair of all, one
    after another (Murtagh 1983). Memory grows with the number of tracklets, not with its square.

    Args:
        vectors: ``(N, D)``.
        constraints: What is known of the pairs.
        cut: Linkage up to which clusters are joined.
        start: ``(N,)``, number of the group that a tracklet is joined to from the start, such as its known person; -1
            for none.
    """
    clusters = Clusters.begin(vectors, constraints, start)
    limit = cut**2
    stale = clusters.alive()
    while len(stale):
        clusters.find_nearest(stale, limit)
        one = clusters.alive()
        one = one[clusters.nearest[one] >= 0]
        other = clusters.nearest[one]
        mutual = (clusters.nearest[other] == one) & (one < other)
        if not mutual.any():
            if not len(one):
                break
            mutual = np.zeros(len(one), dtype=bool)  # rounding made a circle of ties
            mutual[clusters.linkage[one].argmin()] = True
        clusters.join(one[mutual], other[mutual])
        changed = np.concatenate([one[mutual], other[mutual]])
        left = clusters.alive()
        stale = left[np.isin(left, changed) | np.isin(clusters.nearest[left], changed)]
    return clusters


@dataclass(eq=False)
class Clusters:
    """Clusters while they are joined.

    Args:
        points: ``(N, D)``, the tracklets.
        centres: ``(N, D)``; a cluster has the row of one of its tracklets.
        variances: ``(N,)``, mean squared distance of the members to the centre.
        sizes: ``(N,)``, 0 for a cluster that was joined to another.
        members: Tracklets of each cluster.
        constraints: What is known of the pairs.
        nearest: ``(N,)``, nearest cluster that may be joined, -1 for none.
        linkage: ``(N,)``, squared linkage to it.
    """

    points: Tensor
    centres: Tensor
    variances: Tensor
    sizes: NDArray[np.int64]
    members: list[NDArray[np.int64]]
    constraints: Constraints
    nearest: NDArray[np.int64] = field(init=False)
    linkage: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.nearest = np.full(len(self.sizes), -1)
        self.linkage = np.full(len(self.sizes), np.inf)

    @classmethod
    def begin(cls, vectors: Tensor, constraints: Constraints, start: NDArray[np.int64] | None) -> Clusters:
        """Return each tracklet by itself, but for the groups that ``start`` gives."""
        count = len(vectors)
        points = vectors.double() if count <= EXACT_UP_TO else vectors.float()
        points = points - points.mean(0)  # keeps digits where all lie far from the origin
        members = [np.array([row]) for row in range(count)]
        made = cls(
            points, points.clone(), points.new_zeros(count), np.ones(count, dtype=np.int64), members, constraints
        )
        for group in np.unique(start[start >= 0]) if start is not None else ():
            rows = np.flatnonzero(start == group)
            for row in rows[1:]:
                made.join(rows[:1], np.array([row]))
        return made

    def alive(self) -> NDArray[np.int64]:
        """Return the clusters that were not joined to another."""
        return np.flatnonzero(self.sizes)

    def labels(self) -> NDArray[np.int64]:
        """Return ``(N,)``, the number of each tracklet's cluster, from 0 in the order of their first tracklets."""
        found = np.zeros(len(self.sizes), dtype=np.int64)
        for number, place in enumerate(sorted(self.alive(), key=lambda one: self.members[one].min())):
            found[self.members[place]] = number
        return found

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Join each cluster of ``other`` to that of ``one``."""
        a, b = (torch.from_numpy(self.sizes[part]).to(self.centres.dtype) for part in (one, other))
        first, second = torch.from_numpy(one), torch.from_numpy(other)
        total = a + b
        apart = (self.centres[first] - self.centres[second]).square().sum(1)
        self.variances[first] = (
            a * self.variances[first] + b * self.variances[second]
        ) / total + a * b / total**2 * apart
        weighted = a[:, None] * self.centres[first] + b[:, None] * self.centres[second]
        self.centres[first] = weighted / total[:, None]
        self.sizes[one] += self.sizes[other]
        self.sizes[other] = 0
        for kept, gone in zip(one.tolist(), other.tolist(), strict=True):
            self.members[kept] = np.concatenate([self.members[kept], self.members[gone]])
            self.members[gone] = self.members[gone][:0]

    def squared_linkage(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the squared linkage of pairs of clusters, the same for either order."""
        found = np.empty(len(one))
        step = max(1, CELLS_AT_ONCE // self.centres.shape[1])
        for begin in range(0, len(one), step):
            some = slice(begin, begin + step)
            first, second = torch.from_numpy(one[some]), torch.from_numpy(other[some])
            apart = (self.centres[first] - self.centres[second]).square().sum(1)
            found[some] = (apart + (self.variances[first] + self.variances[second])).double().numpy()
        a, b = self.sizes[one], self.sizes[other]
        return found * np.sqrt(2.0 * a * b / (a + b))

    def find_nearest(self, rows: NDArray[np.int64], limit: float) -> None:
        """Find the nearest cluster that each of some may be joined to, within a squared linkage."""
        self.nearest[rows], self.linkage[rows] = -1, np.inf
        alive, count = self.alive(), CANDIDATES
        while len(rows) and len(alive) > 1:
            count = min(count, len(alive) - 1)
            complete = count == len(alive) - 1
            unresolved = []
            step = max(1, CELLS_AT_ONCE // len(alive))
            for begin in range(0, len(rows), step):
                some = rows[begin : begin + step]
                candidates, bounds = self._candidates(some, alive, count)
                done = self._choose(some, candidates, bounds, limit)
                unresolved.append(some[~done])
            if complete:
                break  # a row without an allowed cluster has none
            rows, count = np.concatenate(unresolved), count * 8

    def _candidates(
        self, rows: NDArray[np.int64], alive: NDArray[np.int64], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the clusters with the least mean squared distance, and a bound on the squared linkage of others."""
        centres, variances = self.centres[torch.from_numpy(alive)], self.variances[torch.from_numpy(alive)]
        asked = torch.from_numpy(rows)
        offsets = centres.square().sum(1) + variances
        cells = torch.addmm(offsets, self.centres[asked], centres.T, alpha=-2)
        own = torch.from_numpy(np.searchsorted(alive, rows))
        cells[torch.arange(len(rows)), own] = torch.inf
        nearest = cells.topk(count, dim=1, largest=False)
        others = nearest.values[:, -1] + self.centres[asked].square().sum(1) + self.variances[asked]
        sizes = self.sizes[rows]
        bounds = others.double().numpy() * np.sqrt(2.0 * sizes / (sizes + 1.0))  # the other one may be a tracklet
        return alive[nearest.indices.numpy()], bounds

    def _choose(
        self, rows: NDArray[np.int64], candidates: NDArray[np.int64], bounds: NDArray[np.float64], limit: float
    ) -> NDArray[np.bool_]:
        """Store the nearest allowed candidate of each row; return whether no other cluster can be nearer."""
        count = candidates.shape[1]
        linkage = self.squared_linkage(np.repeat(rows, count), candidates.ravel()).reshape(candidates.shape)
        order = np.lexsort((candidates, linkage), axis=1)  # equal ones in the order of their numbers
        linkage, candidates = np.take_along_axis(linkage, order, 1), np.take_along_axis(candidates, order, 1)
        open_rows = np.arange(len(rows))
        for column in range(count):
            near = linkage[open_rows, column] <= limit
            open_rows = open_rows[near]
            if not len(open_rows):
                break
            chosen = candidates[open_rows, column]
            allowed = ~self.forbidden(rows[open_rows], chosen)
            found = open_rows[allowed]
            self.nearest[rows[found]], self.linkage[rows[found]] = chosen[allowed], linkage[found, column]
            open_rows = open_rows[~allowed]
        # a bound below what was found, or below the limit if nothing was, leaves room for another cluster
        slack = 1 - 1e-6 if self.centres.dtype == torch.float32 else 1 - 1e-12
        return np.minimum(self.linkage[rows], limit) < bounds * slack

    def forbidden(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether pairs of clusters have members that cannot be one person."""
        found = np.zeros(len(one), dtype=bool)
        lengths = self.sizes[one] * self.sizes[other]
        edges = np.searchsorted(np.cumsum(lengths), np.arange(0, lengths.sum() + PAIRS_AT_ONCE, PAIRS_AT_ONCE), "left")
        for begin, end in zip(edges[:-1], np.append(edges[1:-1], len(one)), strict=True):
            places = range(begin, end)
            if not len(places):
                continue
            left = np.concatenate([np.repeat(self.members[one[i]], self.sizes[other[i]]) for i in places])
            right = np.concatenate([np.tile(self.members[other[i]], self.sizes[one[i]]) for i in places])
            hits = self.constraints.forbidden(left, right)
            found[begin:end] = np.logical_or.reduceat(hits, np.cumsum(lengths[begin:end]) - lengths[begin:end])
        return found
