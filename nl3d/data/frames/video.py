"""Frames of a video file, or of a folder of its images, by number from 1."""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nl3d.data.frames.images import MAX_PIXELS, read_image
from nl3d.data.frames.names import is_image_name, number_files
from nl3d.data.frames.packets import Packets, scan_packets

FrameIterator: TypeAlias = "Iterator[tuple[int, Tensor | ValueError]]"
"""Numbers of frames, with their images ``(3, H, W)`` uint8 or the errors of those that do not decode."""


class FrameStream(Protocol):
    """Frames in order, decoded once.

    Attributes:
        path: The file or folder.
        first: Number of the first frame there is.
    """

    path: Path
    first: int

    def require(self, wanted: Collection[int]) -> None:
        """Refuse, as far as is known without decoding, if one of the wanted frames is absent."""

    def read(self, wanted: Collection[int], *, skip_unreadable: bool = False) -> FrameIterator:
        """Yield number and image ``(3, H, W)`` uint8 of each wanted frame, in order.

        With ``skip_unreadable`` a frame that does not decode gives the error in place of its image.
        """


def open_frames(path: str | Path, *, first_frame: int | None = None) -> FrameStream:
    """Open a video file, or a folder of a video's images such as MOTChallenge's ``img1``."""
    path = Path(path)
    if path.is_dir():
        return ImageFrames(path, first_frame=first_frame)
    if not path.exists():
        raise FileNotFoundError(f"video {str(path)!r} does not exist")
    return VideoFrames(path)


_INVALID = "Invalid data found when processing input"  # as FFmpeg says it
_STEADY = 8  # frames of one packet each, after which a packet without a frame is a loss
_SKIP = "; --skip-unreadable (skip_unreadable=True) leaves out frames that do not decode"


class VideoFrames:
    """Frames of a video file, decoded by FFmpeg through PyAV and turned upright as the file asks.

    Frames count as they are decoded, from 1, as in OpenCV, which most trackers use. Where the resolution changes,
    frames are scaled to the size of the first, as FFmpeg does. One frame is held at a time.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.first = Path(path), 1
        self._av = import_av()
        self._scanned: tuple[int, Packets] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoFrames, (self.path,)  # a module, such as PyAV, cannot be sent to a worker

    def require(self, wanted: Collection[int]) -> None:
        """Refuse a video with too few frames, without decoding it."""
        last = max(wanted)
        packets = self._scan(last)
        if packets.total < last and not packets.damage:
            raise self._too_short(packets.total, last)

    def _scan(self, last: int) -> Packets:
        """Count the frames up to one that matters, and those that the container has lost; remembered."""
        if self._scanned is None or self._scanned[0] < last:
            self._scanned = last, scan_packets(self._open(), last, self._av)
        return self._scanned[1]

    def read(self, wanted: Collection[int], *, skip_unreadable: bool = False) -> FrameIterator:
        """Decode up to the last wanted frame and yield the wanted ones."""
        wanted = frozenset(wanted)
        last, number, first = max(wanted), 0, None
        packets = self._scan(last)
        for number, frame in self._decode(packets, skip_unreadable=skip_unreadable):
            if not isinstance(frame, ValueError):
                first = first or frame
            if number in wanted:
                yield number, frame if isinstance(frame, ValueError) else self._image(frame, first)
            if number >= last:
                return
        if not packets.damage:
            raise self._too_short(number, last)
        lost = self._unreadable(ValueError(packets.damage), f" after frame {number}", "" if skip_unreadable else _SKIP)
        if not skip_unreadable:
            raise lost
        yield from ((number, lost) for number in range(number + 1, last + 1) if number in wanted)

    def _decode(self, packets: Packets, *, skip_unreadable: bool) -> Iterator[tuple[int, Any]]:
        """Yield number and frame of FFmpeg, or the error of a frame that is lost.

        A lost frame keeps its number: it is known by the time of its packet, since every packet shown before a frame
        has been sent to the decoder when that frame comes out.
        """
        number = 0
        pending: list[int] = []  # times of packets whose frames have not come out, a heap
        damaged: set[int] = set()  # times of packets that the container knows to be damaged
        gaps = deque(packets.gaps)
        broken: Exception | None = None
        regular = True  # each packet gave one frame while none was broken
        if not packets.numbered:
            raise self._unreadable(ValueError(packets.damage), ", and its frames cannot be numbered")
        with self._open() as (container, stream):
            stream.thread_type = "SLICE" if skip_unreadable else "AUTO"  # threads by frame lose more around an error
            one_each = stream.codec_context.name in ("h264", "hevc")  # no packet without a frame, unlike others
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None and not packet.is_discard:
                    heapq.heappush(pending, packet.pts)
                    if packet.is_corrupt:
                        damaged.add(packet.pts)
                try:
                    frames = packet.decode()
                except self._av.error.FFmpegError as error:
                    if not skip_unreadable:
                        raise self._unreadable(error, f" after frame {number}" if number else "", _SKIP) from error
                    broken = error
                    continue
                for frame in frames:
                    passed = 0
                    while frame.pts is not None and pending and pending[0] <= frame.pts:
                        passed += heapq.heappop(pending) < frame.pts
                    if passed and broken is None and one_each and regular and number >= _STEADY:
                        broken = ValueError(_INVALID)  # the decoder left out a frame without an error
                        if not skip_unreadable:
                            raise self._unreadable(broken, f" after frame {number}", _SKIP)
                    if broken is None:
                        regular &= passed == 0 or number == 0
                    elif frame.pts is None or not regular:
                        raise self._unreadable(broken, f" after frame {number}, and what follows cannot be numbered")
                    else:
                        yield from self._lost(number, passed, broken)
                        number += passed
                    while gaps and frame.pts is not None and gaps[0][0] <= frame.pts:
                        lost = gaps.popleft()[1]
                        if not skip_unreadable:
                            raise self._unreadable(ValueError(packets.damage), f" after frame {number}", _SKIP)
                        yield from self._lost(number, lost, ValueError(packets.damage))
                        number += lost
                    number += 1
                    if not (frame.is_corrupt or frame.pts in damaged):
                        yield number, frame
                    elif skip_unreadable:
                        yield from self._lost(number - 1, 1, ValueError(_INVALID))
                    else:
                        raise self._unreadable(ValueError(_INVALID), f" at frame {number}", _SKIP)
            if pending and number and regular and broken is None:  # lost by the decoder's threads at the end
                broken = ValueError(_INVALID)
                if not skip_unreadable:
                    raise self._unreadable(broken, f" after frame {number}", _SKIP)
        if broken is not None:
            yield from self._lost(number, len(pending), broken)

    def _lost(self, number: int, count: int, error: Exception) -> Iterator[tuple[int, ValueError]]:
        for lost in range(number + 1, number + 1 + count):
            yield lost, self._unreadable(error, f" at frame {lost}")

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        """Open the file and its video stream; errors of FFmpeg become one sentence."""
        if self.path.stat().st_size == 0:
            raise ValueError(f"video {str(self.path)!r} cannot be read: the file is empty")
        try:
            # a file object, since FFmpeg takes some names for protocols or patterns
            with self.path.open("rb") as file, self._av.open(file, metadata_errors="ignore") as container:
                kind = container.format.name
                if kind == "tty":
                    raise ValueError(f"video {str(self.path)!r} must be a video, got a text file")
                if kind.endswith("_pipe"):
                    raise ValueError(
                        f"video {str(self.path)!r} must be a video, got an image; put a video's images into a folder"
                    )
                streams = [
                    stream
                    for stream in container.streams.video
                    if "attached_pic" not in str(stream.disposition).lower()
                ]
                if not streams:
                    raise ValueError(f"video {str(self.path)!r} must have a video stream, got none")
                if streams[0].codec_context is None:
                    raise ValueError(f"video {str(self.path)!r} must be of a codec that FFmpeg decodes here")
                self._check_pixels(streams[0].codec_context)
                yield container, streams[0]
        except Exception as error:  # PyAV raises IndexError and others for some damaged files
            if isinstance(error, ValueError | OSError) and not isinstance(error, self._av.error.FFmpegError):
                raise
            raise self._unreadable(error) from error

    def _image(self, frame: Any, first: Any) -> Tensor:
        self._check_pixels(frame)
        return frame_to_image(frame, first.width, first.height)

    def _check_pixels(self, picture: Any) -> None:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(
                f"video {str(self.path)!r} must have at most {MAX_PIXELS} pixels per frame, "
                f"got {picture.width} x {picture.height}"
            )

    def _unreadable(self, error: Exception | None, where: str = "", remedy: str = "") -> ValueError:
        reason = getattr(error, "strerror", None) or str(error)
        return ValueError(f"video {str(self.path)!r} cannot be read{where}: {reason}{remedy}")

    def _too_short(self, count: int, last: int) -> ValueError:
        return ValueError(
            f"video {str(self.path)!r} must have {last} frames, the last with a box, got {count}; "
            "check that the tracks belong to it"
        )


class ImageFrames:
    """Frames of a video that was unpacked into a folder of images, numbered by the numbers in their names.

    Args:
        path: The folder.
        first_frame: Number in the name of the image that is frame 1; the lowest number if left out. Images without
            numbers in their names count from 1 in order.
    """

    def __init__(self, path: str | Path, *, first_frame: int | None = None) -> None:
        self.path = Path(path)
        names = [name for name in os.listdir(path) if is_image_name(name)]  # noqa: PTH208 - a path each is slow
        if not names:
            raise ValueError(f"folder {str(self.path)!r} must hold images (.jpg, .png or .webp), got none")
        images, numbered = number_files(self.path, names)
        self.offset = (first_frame if numbered and first_frame is not None else min(images)) - 1
        self.images = {number - self.offset: name for number, name in images.items()}
        self.first = min(self.images)

    def require(self, wanted: Collection[int]) -> None:
        """Refuse a folder without an image of one of the wanted frames."""
        missing = [number + self.offset for number in wanted if number not in self.images]
        if missing:
            first, last = self.first + self.offset, max(self.images) + self.offset
            raise ValueError(
                f"folder {str(self.path)!r} must have an image of each frame with a box, got none numbered "
                f"{min(missing)}; its names are numbered from {first} to {last}. Where the boxes give the first image "
                "another number N, pass --first-frame N (BoxOptions(first_frame=N))"
            )

    def read(self, wanted: Collection[int], *, skip_unreadable: bool = False) -> FrameIterator:
        """Decode the wanted images."""
        self.require(wanted)
        for number in sorted(wanted):
            try:
                image: Tensor | ValueError = read_image(self.path / self.images[number])
            except ValueError as error:
                if not skip_unreadable:
                    raise
                image = error
            yield number, image


def frame_to_image(frame: Any, width: int | None = None, height: int | None = None) -> Tensor:
    """Convert a frame of PyAV, turned upright as it asks, to RGB ``(3, H, W)`` uint8.

    Args:
        frame: An ``av.VideoFrame``.
        width: Width to scale to before it is turned, in pixels; its own if left out.
        height: Height, likewise.
    """
    image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    image = np.rot90(image, frame.rotation // 90)
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def import_av() -> ModuleType:
    """Import PyAV, or raise an error that names the extra."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading a video needs PyAV; install it with: pip install 'nl3d[video]'") from error
    return av
