"""Scores of tracks against ground truth, computed by TrackEval."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nl3d.data.readers.boxes import Boxes


class TrackingScores(NamedTuple):
    """How well tracks keep to one person.

    Attributes:
        idf1: Share of boxes with the right identity (Ristani et al. 2016, arXiv:1609.01775).
        assa: Association accuracy of HOTA, mean over its thresholds (Luiten et al. 2020, arXiv:2009.07736).
        switches: Identity switches of CLEAR MOT.
    """

    idf1: float
    assa: float
    switches: int

    def __str__(self) -> str:
        return f"IDF1 {100 * self.idf1:.1f} %, AssA {100 * self.assa:.1f} %, {self.switches} identity switches"


def score_tracks(tracks: Boxes, truth: Boxes, numbers: Mapping[str, int] | None = None) -> TrackingScores:
    """Score tracks by IDF1, the association part of HOTA, and identity switches, at an overlap of one half.

    Args:
        tracks: The tracks.
        truth: The people that are there.
        numbers: Other ids for tracks, by their names.

    Raises:
        ModuleNotFoundError: If TrackEval is not installed.
        ValueError: If there is no box, or boxes are shares of the frame.
    """
    if tracks.shares or truth.shares:
        raise ValueError("boxes must be in pixels to be scored, got shares of the frame")
    if not tracks.tracks or not truth.tracks:
        raise ValueError("tracks and ground truth must each hold a box to be scored, got none")
    try:
        metrics = import_module("trackeval").metrics
    except ModuleNotFoundError:
        raise ModuleNotFoundError("scores need TrackEval; install it with: pip install 'nl3d[tracking]'") from None
    data = _by_frame(tracks, truth, numbers or {})
    settings = {"PRINT_CONFIG": False, "THRESHOLD": 0.5}
    return TrackingScores(
        float(metrics.Identity(settings).eval_sequence(data)["IDF1"]),
        float(np.mean(metrics.HOTA().eval_sequence(data)["AssA"])),
        int(metrics.CLEAR(settings).eval_sequence(data)["IDSW"]),
    )


def _by_frame(tracks: Boxes, truth: Boxes, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Lay out boxes as TrackEval takes them: ids from 0 and overlaps, frame by frame."""
    own = _rows(tracks, numbers)
    right = _rows(truth, {})
    frames = np.unique(np.concatenate([own[:, 0], right[:, 0]]))
    data: dict[str, Any] = {"num_timesteps": len(frames), "similarity_scores": []}
    for name, rows in (("gt", right), ("tracker", own)):
        ids, places = np.unique(rows[:, 1], return_inverse=True)
        chosen = [np.flatnonzero(rows[:, 0] == frame) for frame in frames]
        data |= {f"{name}_ids": [places[some] for some in chosen], f"num_{name}_ids": len(ids),
                 f"num_{name}_dets": len(rows), f"{name}_rows": chosen}  # fmt: skip
    for some, others in zip(data.pop("gt_rows"), data.pop("tracker_rows"), strict=True):
        data["similarity_scores"].append(_overlaps(right[some, 2:], own[others, 2:]))
    return data


def _rows(boxes: Boxes, numbers: Mapping[str, int]) -> NDArray[np.float64]:
    """Return frame, number of the track, left, top, width and height of each box."""
    ids: dict[int, int] = {}
    rows = []
    for track in boxes.tracks:
        number = numbers.get(str(track.track_id), track.track_id)
        place = ids.setdefault(number, len(ids))  # an id of 64 bits is no float
        rows.append(np.column_stack([track.frames, np.full(len(track.frames), place), track.boxes]))
    return np.concatenate(rows)


def _overlaps(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return intersection over union of boxes ``(N, 4)`` and ``(M, 4)``, left, top, width, height."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum((one[:, :2] + one[:, 2:])[:, None], (other[:, :2] + other[:, 2:])[None])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = one[:, 2:].prod(1)[:, None] + other[:, 2:].prod(1)[None]
    return shared / (areas - shared)
