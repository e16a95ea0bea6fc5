"""Where tracklets come from, seen as a stream of clips: boxes in a video, or tracklets that stand ready."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nl3d.data.clips.consecutive import ClipCollector, check_clip_plan, consecutive_clips
from nl3d.data.frames.images import resize_image
from nl3d.data.readers.boxes import BoxOptions, read_boxes
from nl3d.data.readers.manifest import read_manifest_tracklets
from nl3d.data.readers.tree import read_tracklet_folders
from nl3d.data.tracklets import Tracklet


class Record(NamedTuple):
    """What is known of a tracklet before any frame is decoded."""

    name: str
    track_id: int
    pid: int | None = None
    camid: int | None = None


class StreamedClip(NamedTuple):
    """One clip and the frames of its source that were passed to make it, for a progress bar."""

    tracklet: int
    images: Tensor  # (T, 3, H, W) uint8
    progress: int


@dataclass
class SourceReport:
    """What became of the boxes and tracklets while the clips were made.

    Args:
        ranges: First and last frame of each tracklet, from 1; a tracklet without an entry had no frame to use.
        clipped_boxes: Boxes that reached outside the frame and were cut to it.
        dropped_boxes: Boxes that lay outside the frame altogether and were left out.
        unreadable: Tracklet of each frame that was skipped because it does not decode, and what was wrong with it.
    """

    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)
    clipped_boxes: int = 0
    dropped_boxes: int = 0
    unreadable: list[tuple[int, str]] = field(default_factory=list)


class ClipSource(Protocol):
    """Tracklets as a stream of clips."""

    records: list[Record]
    total_frames: int
    path: Path | None
    tracks: Path | None

    def clips(
        self, num_frames: int, frame_step: int, size: tuple[int, int], report: SourceReport
    ) -> Iterator[StreamedClip]:
        """Give every clip of every tracklet, ``size`` pixels high and wide, and fill in the report."""

    def middle_frames(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Give the frame in the middle of each named tracklet, as it is."""


def open_source(
    source: str | Path | Sequence[Tracklet] | VideoSource | TrackletSource,
    tracks: str | Path | None = None,
    *,
    boxes: BoxOptions | None = None,
    check_files: bool = True,
) -> VideoSource | TrackletSource:
    """Find out what was handed in: a video with tracks, a folder of tracklet folders, a table, or tracklets.

    Args:
        source: A video file, or a folder of a video's frames, with ``tracks``; or a folder of tracklet folders; or a
            table (``.csv``), see :func:`nl3d.data.read_manifest_tracklets`; or tracklets; or what this function gave.
        tracks: File of boxes, see :func:`nl3d.data.read_boxes`.
        boxes: How to read the file of boxes.
        check_files: Whether each frame that a table names must be there.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If a video comes without tracks, or tracklets come with them.
    """
    if isinstance(source, VideoSource | TrackletSource):
        return source
    if not isinstance(source, str | Path):
        if tracks is not None:
            raise ValueError("tracks must be left out for tracklets, whose frames are cut out already")
        return TrackletSource(source)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"source {str(path)!r} does not exist")
    if path.suffix.lower() == ".csv" and path.is_file():
        if tracks is not None:
            raise ValueError(f"tracks must be left out for the table {str(path)!r}, whose frames are cut out already")
        return TrackletSource(read_manifest_tracklets(path, check_files=check_files), path=path)
    if tracks is not None:
        return VideoSource(path, tracks, boxes)
    if path.is_dir():
        return TrackletSource(read_tracklet_folders(path), path=path)
    raise ValueError(
        f"tracks must be given for the video {str(path)!r}: a MOTChallenge text file, frame,id,left,top,width,height"
    )


class VideoSource:
    """Boxes in a video, which is decoded once and in order, one frame held at a time.

    Args:
        path: The video, a file or a folder of its images.
        tracks: File of boxes.
        options: How to read the file of boxes.
    """

    def __init__(self, path: str | Path, tracks: str | Path, options: BoxOptions | None = None) -> None:
        self.path: Path | None = Path(path).resolve()
        self.tracks: Path | None = Path(tracks).resolve()
        self.boxes = read_boxes(tracks, options)
        self.box_tracks = self.boxes.tracks
        self.frames = self.boxes.open_video(path)
        names = [str(track.track_id) for track in self.box_tracks]
        self.records = [Record(name, number) for name, number in zip(names, track_numbers(names), strict=True)]
        self.total_frames = max(int(track.frames[-1]) for track in self.box_tracks)

    def clips(
        self,
        num_frames: int,
        frame_step: int,
        size: tuple[int, int],
        report: SourceReport,
        *,
        skip_unreadable: bool = False,
    ) -> Iterator[StreamedClip]:
        """Cut the boxes out of each frame as it is decoded; see :class:`ClipSource`.

        Raises:
            ValueError: If the video does not decode, or is shorter than its boxes.
        """
        collector = ClipCollector(num_frames, frame_step)
        schedule: dict[int, list[tuple[int, NDArray[np.float64]]]] = defaultdict(list)
        for index, track in enumerate(self.box_tracks):
            for number, box in zip(track.frames.tolist(), track.boxes, strict=True):
                schedule[number].append((index, box))
        passed = 0
        for number, image in self.frames.read(list(schedule), skip_unreadable=skip_unreadable):
            for index, box in schedule.pop(number):
                clip = None
                if isinstance(image, ValueError):
                    report.unreadable.append((index, str(image)))
                elif (cut := self.boxes.cut(image, box)) is None:
                    report.dropped_boxes += 1
                else:
                    pixels, clipped = cut
                    report.clipped_boxes += clipped
                    report.ranges[index] = (report.ranges.get(index, (number,))[0], number)
                    if collector.takes(index):
                        clip = collector.add(index, resize_image(pixels, size))
                if clip is None and number == self.box_tracks[index].frames[-1]:
                    clip = collector.close(index)
                if clip is not None:
                    yield StreamedClip(index, clip, number - passed)
                    passed = number

    def middle_frames(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Cut the middle box out of each named track; see :class:`ClipSource`."""
        wanted: dict[int, list[tuple[str, NDArray[np.float64]]]] = defaultdict(list)
        asked = set(names)
        for record, track in zip(self.records, self.box_tracks, strict=True):
            if record.name in asked:
                middle = len(track.frames) // 2
                wanted[int(track.frames[middle])].append((record.name, track.boxes[middle]))
        found: dict[str, Tensor] = {}
        for skip_unreadable in (False, True) if wanted else ():  # decoding with care is slow, and rarely needed
            try:
                for number, image in self.frames.read(wanted, skip_unreadable=skip_unreadable):
                    for name, box in wanted[number]:
                        if isinstance(image, Tensor) and (cut := self.boxes.cut(image, box)) is not None:
                            found[name] = cut[0].clone()
                break
            except ValueError:
                if skip_unreadable:
                    raise
        return found


class TrackletSource:
    """Tracklets that stand ready, one after another.

    Names that are missing become the tracklet's place, from 1. Track ids are the names where all of these are whole
    numbers, else places.

    Args:
        tracklets: The tracklets.
        path: The folder or table they come from, where there is one.

    Raises:
        ValueError: If there are none, or two have the same name.
    """

    def __init__(self, tracklets: Sequence[Tracklet], path: Path | None = None) -> None:
        if len(tracklets) == 0:
            raise ValueError("source must hold at least one tracklet, got none")
        self.path = path.resolve() if path is not None else None
        self.tracks: Path | None = None
        self.tracklets = tracklets
        names = [tracklet.name or str(place) for place, tracklet in enumerate(tracklets, 1)]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise ValueError(f"tracklets must have names of their own, got {repeated[0]!r} more than once")
        self.records = [
            Record(name, number, tracklet.pid, tracklet.camid)
            for name, number, tracklet in zip(names, track_numbers(names), tracklets, strict=True)
        ]
        self.total_frames = sum(map(len, tracklets))

    def clips(
        self, num_frames: int, frame_step: int, size: tuple[int, int], report: SourceReport
    ) -> Iterator[StreamedClip]:
        """Decode each tracklet clip by clip; see :class:`ClipSource`."""
        return self.clips_of(range(len(self.tracklets)), num_frames, frame_step, size, report)

    def clips_of(
        self,
        rows: Iterable[int],
        num_frames: int,
        frame_step: int,
        size: tuple[int, int],
        report: SourceReport,
        *,
        skip_unreadable: bool = False,
    ) -> Iterator[StreamedClip]:
        """Decode some of the tracklets clip by clip.

        Args:
            rows: Which tracklets, in the order to decode them.
            num_frames: Frames of a clip.
            frame_step: Frames from one frame of a clip to the next.
            size: Height and width of a frame, in pixels.
            report: Where to note what became of them.
            skip_unreadable: Whether a frame that does not decode is replaced by the nearest one of its clip that does,
                and a clip without any left out, rather than an error that names the frame.
        """
        check_clip_plan(num_frames, frame_step)
        for index in rows:
            tracklet = self.tracklets[index]
            passed = 0
            for number, places in enumerate(consecutive_clips(len(tracklet), num_frames, frame_step), 1):
                images: dict[int, Tensor] = {}
                for place in dict.fromkeys(places):  # a looped frame is decoded once
                    try:
                        images[place] = resize_image(tracklet.read(place), size)
                    except (OSError, ValueError) as error:
                        if not skip_unreadable:
                            raise
                        report.unreadable.append((index, str(error)))
                if images:
                    done = min(number * num_frames * frame_step, len(tracklet))
                    report.ranges[index] = (1, len(tracklet))
                    chosen = [place if place in images else _nearest(place, images) for place in places]
                    yield StreamedClip(index, torch.stack([images[place] for place in chosen]), done - passed)
                    passed = done

    def middle_frames(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Decode the middle frame of each named tracklet; see :class:`ClipSource`."""
        wanted = set(names)
        return {
            record.name: tracklet.read(len(tracklet) // 2)
            for record, tracklet in zip(self.records, self.tracklets, strict=True)
            if record.name in wanted
        }


def track_numbers(names: Sequence[str]) -> list[int]:
    """Return the names as int64 numbers if all are different whole numbers that fit, else places from 1."""
    if all(name.isascii() and name.isdigit() and len(name) < 20 for name in names):
        numbers = [int(name) for name in names]
        if max(numbers, default=0) < 2**63 and len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))


def _nearest(place: int, others: Iterable[int]) -> int:
    return min(others, key=lambda other: (abs(other - place), other))
