"""Where tracklets come from, seen as a stream of clips: boxes in a video, or tracklets that stand ready."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nl3d.data.clips import ClipCollector, check_clip_plan, consecutive_clips
from nl3d.data.folder import read_tracklet_folders
from nl3d.data.images import resize_image
from nl3d.data.mot import clip_box, read_mot
from nl3d.data.tracklets import Tracklet
from nl3d.data.video import FrameStream, open_frames


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
    """

    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)
    clipped_boxes: int = 0
    dropped_boxes: int = 0


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


def open_source(source: str | Path | Sequence[Tracklet], tracks: str | Path | None = None) -> ClipSource:
    """Find out what was handed in: a video with tracks, a folder of tracklet folders, or tracklets.

    Args:
        source: A video file, or a folder of a video's frames, with ``tracks``; or a folder of tracklet folders; or
            tracklets.
        tracks: Boxes in MOTChallenge text.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If a video comes without tracks, or tracklets come with them.
    """
    if not isinstance(source, str | Path):
        if tracks is not None:
            raise ValueError("tracks must be left out for tracklets, whose frames are cut out already")
        return TrackletSource(source)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"source {str(path)!r} does not exist")
    if tracks is not None:
        return VideoSource(open_frames(path), tracks)
    if path.is_dir():
        return TrackletSource(read_tracklet_folders(path), path=path)
    raise ValueError(
        f"tracks must be given for the video {str(path)!r}: a MOTChallenge text file, frame,id,left,top,width,height"
    )


class VideoSource:
    """Boxes in a video, which is decoded once and in order, one frame held at a time.

    Args:
        frames: The video.
        tracks: Boxes in MOTChallenge text.
    """

    def __init__(self, frames: FrameStream, tracks: str | Path) -> None:
        self.path: Path | None = frames.path.resolve()
        self.tracks: Path | None = Path(tracks).resolve()
        self.frames = frames
        self.box_tracks = read_mot(tracks)
        self.records = [Record(str(track.track_id), track.track_id) for track in self.box_tracks]
        self.total_frames = max(int(track.frames[-1]) for track in self.box_tracks)
        frames.require(self.total_frames)

    def clips(
        self, num_frames: int, frame_step: int, size: tuple[int, int], report: SourceReport
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
        for number, image in self.frames.read(schedule.keys(), self.total_frames):
            for index, box in schedule.pop(number):
                inside, outside = clip_box(box, *image.shape[-2:])
                clip = None
                if inside is None:
                    report.dropped_boxes += 1
                else:
                    report.clipped_boxes += outside
                    report.ranges[index] = (report.ranges.get(index, (number,))[0], number)
                    if collector.takes(index):
                        top, bottom, left, right = inside
                        clip = collector.add(index, resize_image(image[:, top:bottom, left:right], size))
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
        if wanted:
            for number, image in self.frames.read(wanted.keys(), max(wanted)):
                for name, box in wanted[number]:
                    inside, _ = clip_box(box, *image.shape[-2:])
                    if inside is not None:
                        top, bottom, left, right = inside
                        found[name] = image[:, top:bottom, left:right].clone()
        return found


class TrackletSource:
    """Tracklets that stand ready, one after another.

    Names that are missing become the tracklet's place, from 1. Track ids are the names where all of these are whole
    numbers, else places.

    Args:
        tracklets: The tracklets.
        path: The folder they come from, where there is one.

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
        whole = all(name.isascii() and name.isdigit() for name in names) and len({int(n) for n in names}) == len(names)
        self.records = [
            Record(name, int(name) if whole else place, tracklet.pid, tracklet.camid)
            for place, (name, tracklet) in enumerate(zip(names, tracklets, strict=True), 1)
        ]
        self.total_frames = sum(map(len, tracklets))

    def clips(
        self, num_frames: int, frame_step: int, size: tuple[int, int], report: SourceReport
    ) -> Iterator[StreamedClip]:
        """Decode each tracklet clip by clip; see :class:`ClipSource`."""
        check_clip_plan(num_frames, frame_step)
        collector = ClipCollector(num_frames)
        for index, tracklet in enumerate(self.tracklets):
            report.ranges[index] = (1, len(tracklet))
            passed = 0
            for places in consecutive_clips(len(tracklet), num_frames, frame_step):
                clip = None
                for place in dict.fromkeys(places):  # a looped frame is decoded once
                    clip = collector.add(index, resize_image(tracklet.read(place), size))
                clip = collector.close(index) if clip is None else clip
                if clip is not None:
                    done = min(passed + num_frames * frame_step, len(tracklet))
                    yield StreamedClip(index, clip, done - passed)
                    passed = done

    def middle_frames(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Decode the middle frame of each named tracklet; see :class:`ClipSource`."""
        wanted = set(names)
        return {
            record.name: tracklet.read(len(tracklet) // 2)
            for record, tracklet in zip(self.records, self.tracklets, strict=True)
            if record.name in wanted
        }
