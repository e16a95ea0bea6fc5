"""Frames in memory as tracklets: arrays, PIL images, lists of lists, generators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from nl3d.data.clips.processor import ChannelOrder, check_order, to_images
from nl3d.data.tracklets import FrameReference, Tracklet, is_image

Crops: TypeAlias = "Tracklet | Tensor | np.ndarray[Any, Any] | Iterable[Any]"
"""Tracklets, one per item; an item holds the frames of one tracklet in any form."""

REMEDY = "pass [crops] if they are one tracklet, or [[crop] for crop in crops] if each is a tracklet of its own"


def to_tracklets(crops: Crops, order: ChannelOrder = "rgb") -> Iterator[Tracklet]:
    """Yield the tracklets of frames in memory, one at a time.

    Args:
        crops: One image, which is a tracklet of one frame; an array ``(N, T, H, W, 3)`` or tensor ``(N, T, 3, H, W)``;
            or any iterable with one item per tracklet: a :class:`nl3d.Tracklet`, an array ``(T, H, W, 3)`` or tensor
            ``(T, 3, H, W)``, or an iterable of images, whose sizes may differ. Images are uint8 arrays ``(H, W, 3)``,
            uint8 tensors ``(3, H, W)``, PIL images, or image files.
        order: Order of the colours in arrays and tensors.

    Raises:
        TypeError: If an item is neither a tracklet nor frames.
        ValueError: If it is open whether images are the frames of one tracklet or one tracklet each, a tracklet has no
            frame, or ``order`` does not fit.
    """
    check_order(order)
    if isinstance(crops, Tracklet) or is_image(crops):
        crops = [crops if isinstance(crops, Tracklet) else [crops]]
    elif isinstance(crops, Tensor | np.ndarray) and crops.ndim != 5:
        raise ValueError(
            f"crops must be one image, or (N, T, H, W, 3) for arrays and (N, T, 3, H, W) for tensors, got "
            f"{tuple(crops.shape)}; pass crops[None] if all images are one tracklet, or crops[:, None] if each is a "
            "tracklet of its own"
        )
    elif not isinstance(crops, Iterable):
        raise TypeError(f"crops must be images or tracklets, got {type(crops).__name__}")
    for place, item in enumerate(crops, 1):
        yield _tracklet(item, place, order)


def _tracklet(item: Any, place: int, order: ChannelOrder) -> Tracklet:
    is_frame = is_image(item) or isinstance(item, str | Path | FrameReference)
    if is_frame and not isinstance(item, Tracklet):  # which has a method read() too
        raise ValueError(
            f"crops must hold one sequence of images per tracklet, got one image ({type(item).__name__}) as item "
            f"{place}; {REMEDY}"
        )
    if not isinstance(item, Tracklet | Iterable) or isinstance(item, bytes | dict):
        raise TypeError(f"crops must hold images or tracklets, got {type(item).__name__} as item {place}")
    try:
        if order == "bgr":
            frames = to_images(item, order)
            return replace(item, frames=frames) if isinstance(item, Tracklet) else Tracklet(frames)
        if isinstance(item, Tracklet):
            return item
        return Tracklet(item if isinstance(item, Tensor | np.ndarray) else list(item))
    except (TypeError, ValueError) as error:
        raise type(error)(f"tracklet {place} of crops: {error}") from None
