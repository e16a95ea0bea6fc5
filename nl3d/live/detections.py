"""Boxes of one frame, as trackers in Python hand them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nl3d.data.readers.box_rows import MAX_PIXELS, UNTRACKED

BoxCoordinates: TypeAlias = Literal["xyxy", "ltwh"]
"""What the four numbers of a box are: two corners, or left, top, width and height; in pixels."""


class TrackedBoxes(NamedTuple):
    """Boxes of one frame, in the order in which they were given.

    Attributes:
        ids: Id of each box; None for a box without a track, and for one that is no box.
        boxes: ``left, top, width, height`` in pixels, float64 ``(n, 4)``.
        untracked: Number of boxes without a track.
        bad: Number of boxes without area, with a number that is not finite, or far outside any frame.
    """

    ids: list[int | None]
    boxes: NDArray[np.float64]
    untracked: int
    bad: int


def read_detections(boxes: Any, ids: Any = None, coordinates: BoxCoordinates | None = None) -> TrackedBoxes:
    """Read the boxes of one frame, and check all of them.

    Args:
        boxes: ``supervision.Detections``, Ultralytics' ``Results`` or ``Boxes``, an array or tensor ``(n, 4)``, or None
            for no boxes.
        ids: Whole number of each box of an array, as the tracker gave it; negative or None for a box without a track.
        coordinates: What an array's numbers are. The other kinds know it.

    Raises:
        TypeError: If the ids come twice, or are no whole numbers.
        ValueError: If shapes do not fit, an id occurs twice, ids are missing, or ``coordinates`` is.
    """
    if boxes is None:
        return TrackedBoxes([], np.empty((0, 4)), 0, 0)
    own = _known(boxes)
    if own is not None:
        if ids is not None:
            raise TypeError(f"ids must be left out for {type(boxes).__name__}, which has its own")
        boxes, ids, coordinates = *own, "xyxy"
    corners = np.asarray(_plain(boxes), dtype=np.float64)
    corners = corners.reshape(0, 4) if corners.size == 0 else corners
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"boxes must be (n, 4), got {corners.shape}")
    if len(corners) and coordinates not in get_args(BoxCoordinates):
        raise ValueError(
            "coordinates must be 'xyxy' (two corners) or 'ltwh' (left, top, width, height) for boxes in an array, "
            f"got {coordinates!r}"
        )
    if coordinates == "xyxy":
        corners = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    numbers = _ids(ids, len(corners))
    untracked = numbers.count(None)
    good = (np.isfinite(corners) & (np.abs(corners) <= MAX_PIXELS)).all(axis=1) & (corners[:, 2:] > 0).all(axis=1)
    numbers = [number if fine else None for number, fine in zip(numbers, np.asarray(good).tolist(), strict=True)]
    return TrackedBoxes(numbers, corners, untracked, numbers.count(None) - untracked)


def _known(boxes: Any) -> tuple[Any, Any] | None:
    """Return corners and ids of an object of supervision or Ultralytics; None for anything else."""
    if hasattr(boxes, "tracker_id"):  # supervision.Detections
        if boxes.tracker_id is None and len(boxes.xyxy):
            raise ValueError("boxes must have ids, got detections without tracker_id; pass them to a tracker first")
        return boxes.xyxy, () if boxes.tracker_id is None else boxes.tracker_id
    if hasattr(boxes, "orig_img") and getattr(boxes, "boxes", None) is None:
        raise ValueError("results must have upright boxes, got none; use a detector or a pose network of Ultralytics")
    boxes = getattr(boxes, "boxes", boxes)  # ultralytics Results hold Boxes
    if not hasattr(boxes, "xyxy"):
        return None
    # while the tracker has no track, the ids are None, whatever the detector found
    return boxes.xyxy, [None] * len(boxes.xyxy) if boxes.id is None else boxes.id


def _plain(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _ids(ids: Any, count: int) -> list[int | None]:
    """Return the ids as whole numbers, None for those that mark a box without a track."""
    if ids is None and count:
        raise ValueError("ids must be given with boxes in an array, one whole number per box")
    given: Sequence[Any] = [] if ids is None else np.asarray(_plain(ids)).reshape(-1).tolist()
    if len(given) != count:
        raise ValueError(f"ids must be one per box, got {len(given)} for {count} boxes")
    numbers = [_id(value) for value in given]
    known = [number for number in numbers if number is not None]
    if len(set(known)) < len(known):
        repeated = next(number for number in known if known.count(number) > 1)
        raise ValueError(f"ids must differ within a frame, got {repeated} more than once")
    return numbers


def _id(value: Any) -> int | None:
    if value is None or value != value:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (not isinstance(value, str) and number != value):
        raise TypeError(f"ids must be whole numbers, got {value!r}")
    return number if 0 <= number < UNTRACKED else None
