"""Tracklets: frames of one person under one camera, as every reader returns them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from nl3d.data.frames.images import pillow_to_tensor, read_image


@runtime_checkable
class FrameReference(Protocol):
    """Object that decodes to one frame, such as a box in a larger image."""

    def read(self) -> Tensor:
        """Return the frame as ``(3, H, W)`` uint8."""


@runtime_checkable
class FrameSource(Protocol):
    """Sequence of frames that is faster to read several at once."""

    def read_all(self, indices: Sequence[int]) -> Sequence[Tensor]:
        """Return some frames, each ``(3, H, W)`` uint8."""


Frame: TypeAlias = "str | Path | Image | FrameReference | Tensor | np.ndarray[Any, Any]"
"""A file, a PIL image, an object with ``read()``, a tensor ``(3, H, W)`` or an array ``(H, W, 3)``: uint8, RGB."""


@dataclass(frozen=True, eq=False)
class Tracklet:
    """Frames of one person under one camera in temporal order.

    Frames are decoded on access, so tracklets of image files hold only names.

    Args:
        frames: One entry per frame: image files, objects with a ``read()`` method, or RGB images; or all frames as one
            uint8 tensor ``(T, 3, H, W)`` or array ``(T, H, W, 3)``. If the sequence has a method ``read_all(indices)``,
            the frames of a clip are read by one call.
        pid: Number of the person for computing, if known. Data sets with junk and distractors keep their own convention
            (MARS: -1 and 0). Training tracklets of a :class:`nl3d.data.ReIDDataset` have the number of their class.
        camid: Number of the camera for computing, if known.
        name: Name in tables and pictures.
        person: Label of the person as text, by which files are compared; ``str(pid)`` if left out.
        camera: Label of the camera as text; ``str(camid)`` if left out.
        clothes: Label of what the person wears, if known; it is compared within one person only.

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
    clothes: str | None = None

    def __post_init__(self) -> None:
        if self.person is None and self.pid is not None:
            object.__setattr__(self, "person", str(self.pid))
        if self.camera is None and self.camid is not None:
            object.__setattr__(self, "camera", str(self.camid))
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
            index: Number of the frame, from 0.

        Shape:
            - Output: ``(3, H, W)`` uint8
        """
        return to_image(self.frames[index])

    def read_all(self, indices: Iterable[int] | None = None) -> list[Tensor]:
        """Decode several frames, or all if ``indices`` is left out; their sizes may differ."""
        places = list(range(len(self)) if indices is None else indices)
        if isinstance(self.frames, FrameSource):
            return [to_image(frame) for frame in self.frames.read_all(places)]
        return [self.read(index) for index in places]


def is_image(item: Any) -> bool:
    """Whether an object is one image in memory: a PIL image, or an array or tensor of three dimensions."""
    return isinstance(item, Image) or (isinstance(item, Tensor | np.ndarray) and item.ndim == 3)


def to_image(frame: Frame) -> Tensor:
    """Convert any frame to an image ``(3, H, W)`` uint8."""
    if isinstance(frame, str | Path):
        return read_image(frame)
    if isinstance(frame, Image):
        return pillow_to_tensor(frame)
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
