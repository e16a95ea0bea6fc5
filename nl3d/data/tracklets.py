"""Tracklets: frames of one person under one camera, as every reader returns them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from nl3d.data.frames.images import read_image


@runtime_checkable
class FrameReference(Protocol):
    """Anything that decodes to one frame when asked, such as a box in a larger image."""

    def read(self) -> Tensor:
        """Give the frame as ``(3, H, W)`` uint8."""


@runtime_checkable
class FrameSource(Protocol):
    """A sequence of frames that gives several at once for less than one after the other."""

    def read_all(self, indices: Sequence[int]) -> Sequence[Tensor]:
        """Give some frames, each ``(3, H, W)`` uint8."""


Frame: TypeAlias = "str | Path | FrameReference | Tensor | np.ndarray[Any, Any]"
"""An image file, something that reads itself, a tensor ``(3, H, W)`` or an array ``(H, W, 3)``, both uint8."""


@dataclass(frozen=True, eq=False)
class Tracklet:
    """Frames of one person under one camera, in order of time.

    Frames are decoded when asked for, so a list of tracklets over image files costs nothing but their names.

    Args:
        frames: One entry a frame: image files, objects with a ``read()`` method, or images; or all frames as one uint8
            tensor ``(T, 3, H, W)`` or array ``(T, H, W, 3)``. A sequence with a method ``read_all(indices)`` is asked
            for a clip's frames at once.
        pid: Number of the person for computing, if known. Data sets with junk and distractors keep their own convention
            (MARS: -1 and 0). Training tracklets of a :class:`nl3d.data.ReIDDataset` have the number of their class.
        camid: Number of the camera for computing, if known.
        name: Name in tables and pictures.
        person: Label of the person as text, by which files are compared; ``str(pid)`` if left out.
        camera: Label of the camera as text; ``str(camid)`` if left out.

    Raises:
        ValueError: If there are no frames.
        TypeError: If frames given as one array are not uint8.

    Example:
        >>> tracklet = Tracklet(torch.zeros(5, 3, 64, 32, dtype=torch.uint8), pid=7, camid=1)
        >>> len(tracklet), tracklet.read(4).shape
        (5, torch.Size([3, 64, 32]))
    """

    frames: Sequence[Frame] | Tensor | np.ndarray[Any, Any]
    pid: int | None = None
    camid: int | None = None
    name: str = ""
    person: str | None = None
    camera: str | None = None

    def __post_init__(self) -> None:
        for label, number in (("person", self.pid), ("camera", self.camid)):
            if number is not None and getattr(self, label) is None:
                object.__setattr__(self, label, str(number))
        if isinstance(self.frames, Tensor | np.ndarray) and self.frames.ndim != 4:
            raise ValueError(
                "frames must be a tensor (T, 3, H, W) or an array (T, H, W, 3), "
                f"got {tuple(self.frames.shape)} for tracklet {self.name!r}"
            )
        if len(self.frames) == 0:
            raise ValueError(f"frames must hold at least one frame, got none for tracklet {self.name!r}")

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int) -> Tensor:
        """Decode one frame.

        Args:
            index: Which frame, from 0.

        Shape:
            - Output: ``(3, H, W)`` uint8
        """
        return to_image(self.frames[index])

    def read_all(self, indices: Iterable[int] | None = None) -> list[Tensor]:
        """Decode several frames, all of them if none are named; their sizes may differ."""
        places = list(range(len(self)) if indices is None else indices)
        if isinstance(self.frames, FrameSource):
            return [to_image(frame) for frame in self.frames.read_all(places)]
        return [self.read(index) for index in places]


def to_image(frame: Frame) -> Tensor:
    """Turn any frame into an image ``(3, H, W)`` uint8.

    Raises:
        TypeError: If it is no frame, or holds other values than uint8.
        ValueError: If an array or tensor has another shape.
    """
    if isinstance(frame, str | Path):
        return read_image(frame)
    if isinstance(frame, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(frame)).movedim(-1, 0)
    elif isinstance(frame, Tensor):
        image = frame
    elif isinstance(frame, FrameReference):
        image = frame.read()
    else:
        raise TypeError(f"frame must be a file name, an image or have a read() method, got {type(frame).__name__}")
    if image.dtype != torch.uint8:
        raise TypeError(f"frame must hold uint8 values from 0 to 255, got {image.dtype}")
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"frame must be a tensor (3, H, W) or an array (H, W, 3), got {tuple(frame.shape)}")  # type: ignore[union-attr]
    return image
