"""Distances of labelled pairs of tracklets, and the rates at which a threshold on them errs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nl3d.data.labels import DISTRACTOR, JUNK
from nl3d.metrics.distance import Metric, pairwise_distance
from nl3d.people.tracklets import TrackletList

MOST_TRACKLETS = 5000
"""More labelled tracklets than this are thinned out, whole people at a time: pairs grow with the square."""
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Distances of pairs that show one person, and of pairs that show two.

    Args:
        same: ``(S,)`` float64, ascending.
        different: ``(D,)`` float64, ascending.
        people: Number of people.
        tracklets: Number of their tracklets.
    """

    same: NDArray[np.float64]
    different: NDArray[np.float64]
    people: int
    tracklets: int

    def false_accepts(self, distance: float) -> float:
        """Return the share of pairs of two people at this distance or nearer."""
        return float(np.searchsorted(self.different, distance, "right")) / len(self.different)

    def true_accepts(self, distance: float) -> float:
        """Return the share of pairs of one person at this distance or nearer."""
        return float(np.searchsorted(self.same, distance, "right")) / len(self.same)

    def threshold(self, false_accepts: float) -> float:
        """Return the largest distance at which at most this share of the pairs of two people pass."""
        allowed = min(int(false_accepts * len(self.different) + 1e-9), len(self.different) - 1)
        return max(float(np.nextafter(self.different[allowed], -np.inf)), 0.0)

    def equal_error(self) -> tuple[float, float]:
        """Return the equal error rate and its distance: where false accepts and false rejects are equally frequent."""
        distances = np.concatenate([self.same, self.different])
        distances.sort()
        accepts = np.searchsorted(self.different, distances, "right") / len(self.different)
        rejects = 1 - np.searchsorted(self.same, distances, "right") / len(self.same)
        place = int(np.argmin(np.abs(accepts - rejects)))
        return float(accepts[place] + rejects[place]) / 2, float(distances[place])


def labelled_pairs(
    tracklets: TrackletList, *, metric: Metric = "euclidean", same_camera: bool | None = None
) -> LabelledPairs:
    """Measure all pairs of labelled tracklets that are two visits.

    Tracklets that overlap in one video are no pair: a track and its double would be too easy. Junk and distractors are
    left out. Of more than :data:`MOST_TRACKLETS` tracklets, every k-th person is taken.

    Args:
        tracklets: The tracklets with their people.
        metric: How distances are measured.
        same_camera: Whether pairs under one camera count; only if there is one camera, if left out.

    Raises:
        ValueError: If there is no pair of one person, or none of two.
    """
    no_one = {None, str(JUNK), str(DISTRACTOR)}
    everyone = sorted({person for person in tracklets.people if person is not None and person not in no_one})
    known = np.array([person not in no_one for person in tracklets.people])
    step = -(-int(known.sum()) // MOST_TRACKLETS) or 1
    numbers = {person: number for number, person in enumerate(everyone[::step])}
    people = np.array([numbers.get(person, -1) if person else -1 for person in tracklets.people])
    rows = np.flatnonzero(people >= 0)
    people, vectors, frames = people[rows], tracklets.vectors[rows], tracklets.frames[rows]
    videos, timed = tracklets.videos[rows], tracklets.timed[rows]
    _, cameras = np.unique(np.array(tracklets.cameras, dtype=object)[rows].astype(str), return_inverse=True)
    if same_camera is None:
        same_camera = len(rows) > 0 and cameras.max() == 0
    same, different = [], []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = slice(start, min(start + ROWS_AT_ONCE, len(rows)))
        distances = np.asarray(pairwise_distance(vectors[some], vectors, metric=metric), dtype=np.float64)
        own = np.arange(some.start, some.stop)[:, None]
        wanted = own < np.arange(len(rows))
        if not same_camera:
            wanted &= cameras[some, None] != cameras
        at_once = (frames[some, None, 0] <= frames[:, 1]) & (frames[:, 0] <= frames[some, None, 1])
        wanted &= ~(at_once & timed & timed[some, None] & (videos[some, None] == videos))
        alike = people[some, None] == people
        same.append(distances[wanted & alike])
        different.append(distances[wanted & ~alike])
    pairs = LabelledPairs(
        np.sort(np.concatenate([[], *same])), np.sort(np.concatenate([[], *different])), len(numbers), len(rows)
    )
    if not len(pairs.same) or not len(pairs.different):
        raise ValueError(
            f"labelled tracklets must have pairs of one person and of two, got {len(pairs.same)} and "
            f"{len(pairs.different)} from {len(rows)} tracklets of {len(numbers)} people"
            + ("" if same_camera else "; pairs under one camera are left out, --keep-same-camera keeps them")
        )
    return pairs
