"""The distance up to which tracklets are joined, chosen from the tracklets themselves without labels."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nl3d.people.constraints import Constraints
from nl3d.retrieval.calibration import Calibration

SAMPLE = 2000
"""Tracklets that pairs are drawn from."""

FEWEST_KNOWN = 30
"""Fewer known pairs of two people say nothing of their distances; all pairs stand in, since most are of two."""

ALONE, GUARDED = 1.4, 1.55
"""Cut in units of the distance at which a pair is as likely of one person as of two. ``ALONE``: nothing is known of any
pair. ``GUARDED``: a tenth of all pairs or more are known to be two people, so that wrong joins are mostly impossible.
Chosen on walkers and on vtest.avi, see docs/people.md."""

FULLY_GUARDED = 0.1

CHANCE_NEIGHBOURS = 0.1
"""Other people that a tracklet may have within the cut by chance, where people are far apart for their number."""


@dataclass(frozen=True)
class Cut:
    """Where clustering stops, and how it was found.

    Args:
        distance: Linkage up to which clusters are joined, see :func:`nl3d.people.clustering.cluster`.
        calibration: The calibration, scaled to these tracklets.
        same_share: Estimated share of pairs of one person among the pairs that may be.
        known_share: Share of pairs that are known to be two people.
    """

    distance: float
    calibration: Calibration
    same_share: float
    known_share: float


def choose_cut(vectors: Tensor, constraints: Constraints, calibration: Calibration) -> Cut:
    """Choose the cut.

    Pairs that cannot be one person give the scale of distances between two people here: it differs from the footage
    that the calibration was fitted on. The share of pairs of one person among the others is estimated by expectation
    maximisation (Saerens et al. 2002, adjusting a classifier to new priors). Both give the distance at which a pair is
    as likely of one person as of two. The cut lies above it by a factor between :data:`ALONE` and :data:`GUARDED`:
    clusters gather evidence that a single pair lacks.

    Among many people that distance shrinks to nothing, since a calibration says little of rare chances. Where the
    network keeps people so far apart that hardly any two of them are near by chance, the cut is the distance of that
    chance, :data:`CHANCE_NEIGHBOURS`, under a normal distribution of the distances of two people. The larger one is
    taken.

    Args:
        vectors: ``(N, D)``.
        constraints: What is known of the pairs.
        calibration: Probabilities of the network, for Euclidean distances.
    """
    rows = np.unique(np.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors))).astype(np.int64))
    if len(rows) < 2:
        return Cut(calibration.distance(0.5), calibration, 0.0, 0.0)
    chosen = vectors[torch.from_numpy(rows)].double()
    distances = torch.nn.functional.pdist(chosen).numpy()
    first, second = np.triu_indices(len(rows), 1)
    known = constraints.forbidden(rows[first], rows[second])
    typical = float(np.median(distances[known] if known.sum() >= FEWEST_KNOWN else distances))
    scaled = calibration.scaled_to(max(typical, 1e-6))
    share = _share_of_one_person(scaled.log_odds(torch.from_numpy(distances[~known])).numpy())
    factor = ALONE + (GUARDED - ALONE) * min(1.0, float(known.mean()) / FULLY_GUARDED)
    apart = _chance_distance(distances[known] if known.sum() >= FEWEST_KNOWN else distances, len(vectors))
    return Cut(max(factor * scaled.distance(1 - share), apart), scaled, share, float(known.mean()))


def _chance_distance(distances: NDArray[np.float64], count: int) -> float:
    """Return the distance within which a tracklet of ``count`` has :data:`CHANCE_NEIGHBOURS` other people by chance."""
    normal = NormalDist()
    middle, one, two = np.quantile(distances, [0.5, normal.cdf(-1), normal.cdf(-2)])
    deviation = max(middle - one, (middle - two) / 2)  # of the lower half, whichever part is wider
    return max(float(middle + normal.inv_cdf(CHANCE_NEIGHBOURS / count) * deviation), 0.0)


def _share_of_one_person(log_odds: NDArray[np.float64], steps: int = 200) -> float:
    """Return the most likely share of positives, from log odds that hold for a share of one half."""
    if not len(log_odds):
        return 1e-6
    share = 0.05
    for _ in range(steps):
        posterior = 1 / (1 + np.exp(-np.clip(log_odds + np.log(share / (1 - share)), -700, 700)))
        share = float(np.clip(posterior.mean(), 1e-6, 0.5))
    return share
