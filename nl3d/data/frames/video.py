"""Frames of a video file, or of a folder of images that stands for one, by number from 1."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nl3d.data.frames.images import list_images, read_image


class FrameStream(Protocol):
    """Frames in order, decoded once."""

    path: Path

    def require(self, last: int) -> None:
        """Refuse, as far as can be told without decoding, if there are fewer than ``last`` frames."""

    def read(self, wanted: Container[int], last: int) -> Iterator[tuple[int, Tensor]]:
        """Give number and image ``(3, H, W)`` uint8 of each wanted frame up to ``last``, in order."""


def open_frames(path: str | Path) -> FrameStream:
    """Open a video file, or a folder of images in natural order (MOTChallenge's ``img1``).

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
        ModuleNotFoundError: If it is a video and PyAV is not installed.
        ValueError: If the folder holds no images.
    """
    path = Path(path)
    if path.is_dir():
        return ImageFrames(path)
    if not path.exists():
        raise FileNotFoundError(f"video {str(path)!r} does not exist")
    return VideoFrames(path)


class VideoFrames:
    """Frames of a video file, decoded by FFmpeg through PyAV and turned upright as the file asks.

    Frames count as they are decoded, from 1, like in OpenCV, on which most trackers stand. One frame is held at a time.

    Args:
        path: The video file.

    Raises:
        ModuleNotFoundError: If PyAV is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._av = import_av()

    def require(self, last: int) -> None:
        """Refuse a video with fewer than ``last`` frames, without decoding it.

        The count that a container announces may be an estimate or missing, so a low one is checked by counting packets.
        """
        try:
            with self._av.open(str(self.path)) as container:
                stream = self._stream(container)
                if stream.frames >= last:
                    return
                count = 0
                for packet in container.demux(stream):
                    count += packet.size > 0
                    if count == last:
                        return
        except self._av.error.FFmpegError as error:
            raise self._unreadable(error) from error
        raise self._too_short(count, last)

    def read(self, wanted: Container[int], last: int) -> Iterator[tuple[int, Tensor]]:
        """Decode up to frame ``last`` and give the wanted frames.

        Raises:
            ValueError: If the file is no video, breaks off in the middle, or ends before ``last``.
        """
        number = 0
        try:
            with self._av.open(str(self.path)) as container:
                stream = self._stream(container)
                stream.thread_type = "AUTO"
                for number, frame in enumerate(container.decode(stream), 1):
                    if number in wanted:
                        image = np.rot90(frame.to_ndarray(format="rgb24"), getattr(frame, "rotation", 0) // 90)
                        yield number, torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
                    if number >= last:
                        return
        except self._av.error.FFmpegError as error:
            raise self._unreadable(error, after=number) from error
        raise self._too_short(number, last)

    def _stream(self, container: Any) -> Any:
        streams = container.streams.video
        if not streams:
            raise ValueError(f"video {str(self.path)!r} must have a video stream, got none")
        return streams[0]

    def _unreadable(self, error: Exception, after: int = 0) -> ValueError:
        where = f" after frame {after}" if after else ""
        reason = getattr(error, "strerror", None) or str(error)
        return ValueError(f"video {str(self.path)!r} cannot be read{where}: {reason}")

    def _too_short(self, count: int, last: int) -> ValueError:
        return too_short(self.path, "video", count, last)


class ImageFrames:
    """Frames of a video that was unpacked into a folder of images, in natural order of their names.

    Args:
        path: The folder.

    Raises:
        ValueError: If it holds no images.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.images = list_images(self.path)
        if not self.images:
            raise ValueError(f"folder {str(self.path)!r} must hold images (.jpg, .png or .webp), got none")

    def require(self, last: int) -> None:
        """Refuse a folder with fewer than ``last`` images."""
        if len(self.images) < last:
            raise too_short(self.path, "folder", len(self.images), last)

    def read(self, wanted: Container[int], last: int) -> Iterator[tuple[int, Tensor]]:
        """Decode the wanted images up to number ``last``."""
        self.require(last)
        for number, path in enumerate(self.images[:last], 1):
            if number in wanted:
                yield number, read_image(path)


def too_short(path: Path, kind: str, count: int, last: int) -> ValueError:
    """Word the refusal of frames that end before their boxes do."""
    return ValueError(
        f"{kind} {str(path)!r} must have {last} frames, the last with a box, got {count}; "
        "check that the tracks belong to it"
    )


def import_av() -> ModuleType:
    """Import PyAV, or say how to get it."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading a video needs PyAV; install it with: pip install 'nl3d[video]'") from error
    return av
