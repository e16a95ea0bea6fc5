"""Sources of tracklets: boxes in a video, or tracklets whose frames are cut out already; both as batches of clips."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from nl3d.data.clips.dataset import read_clip
from nl3d.data.clips.processor import ClipProcessor
from nl3d.data.clips.sampling import check_clip_plan, clip_places, count_clips
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
    person: str | None = None
    camera: str | None = None


@dataclass
class SourceReport:
    """What became of boxes and frames while clips were made.

    Args:
        ranges: First and last frame of each track of a video, from 1; a track without an entry had no frame to use.
        clipped_boxes: Boxes that reached outside the frame and were cut to it.
        dropped_boxes: Boxes that lay outside the frame altogether and were left out.
        unreadable: Tracklet of each frame that was skipped because it does not decode, and the error.
    """

    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)
    clipped_boxes: int = 0
    dropped_boxes: int = 0
    unreadable: list[tuple[int, str]] = field(default_factory=list)

    def take(self, first_row: int = 0) -> SourceReport:
        """Move everything into a new report, whose rows count from ``first_row``."""
        ranges = {first_row + row: frames for row, frames in self.ranges.items()}
        taken = SourceReport(ranges, self.clipped_boxes, self.dropped_boxes, self.unreadable)
        self.ranges, self.clipped_boxes, self.dropped_boxes, self.unreadable = {}, 0, 0, []
        return taken

    def add(self, later: SourceReport) -> None:
        """Add a report of what happened after this one."""
        for row, (first, last) in later.ranges.items():
            self.ranges[row] = self.ranges.get(row, (first, last))[0], last
        self.clipped_boxes += later.clipped_boxes
        self.dropped_boxes += later.dropped_boxes
        self.unreadable += later.unreadable


class ClipBatch(NamedTuple):
    """Clips that go through the network together.

    Attributes:
        part: Number of the part that they belong to.
        rows: Tracklet of each clip.
        images: ``(len(rows), T, 3, H, W)`` uint8; empty if there is no clip.
        progress: Frames of the source that were read for this batch.
        report: What became of them.
    """

    part: int
    rows: list[int]
    images: Tensor
    progress: int
    report: SourceReport


class ClipSource(Protocol):
    """Tracklets as batches of clips."""

    records: list[Record]
    total_frames: int
    path: Path | None
    tracks: Path | None

    def batches(
        self, parts: Sequence[range], processor: ClipProcessor, batch_size: int, *, skip_unreadable: bool = False
    ) -> Dataset[ClipBatch]:
        """Return a data set of batches, for a ``DataLoader`` with ``batch_size=None``.

        No batch holds clips of two parts, so that the vectors of a part do not depend on the others.
        """
        ...

    def max_workers(self) -> int:
        """Return the largest number of worker processes that can be of use."""
        ...

    def middle_frames(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the frame in the middle of each named tracklet, in its own size."""
        ...


def open_source(
    source: str | Path | Sequence[Tracklet] | VideoSource | TrackletSource,
    tracks: str | Path | None = None,
    *,
    boxes: BoxOptions | None = None,
    check_files: bool = True,
) -> VideoSource | TrackletSource:
    """Open a video with tracks, a folder of tracklet folders, a table, or tracklets.

    Args:
        source: A video file, or a folder of a video's frames, with ``tracks``; or a folder of tracklet folders; or a
            table (``.csv``), see :func:`nl3d.data.read_manifest_tracklets`; or tracklets; or what this returned.
        tracks: File of boxes, see :func:`nl3d.data.read_boxes`.
        boxes: How to read the file of boxes.
        check_files: Whether each frame that a table names must exist.

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

    def batches(
        self, parts: Sequence[range], processor: ClipProcessor, batch_size: int, *, skip_unreadable: bool = False
    ) -> Dataset[ClipBatch]:
        """Cut the boxes out of each frame as it is decoded; see :class:`ClipSource`."""
        return _VideoBatches([self], processor, batch_size, skip_unreadable=skip_unreadable)

    def max_workers(self) -> int:
        """Return 1: a video is decoded in order."""
        return 1

    def clips(
        self, processor: ClipProcessor, report: SourceReport, *, skip_unreadable: bool = False
    ) -> Iterator[tuple[int, Tensor, int]]:
        """Yield each clip once it is full: its row, the clip ``(T, 3, H, W)`` uint8, and the number of the frame.

        Raises:
            ValueError: If the video does not decode, or is shorter than its boxes.
        """
        collector = ClipCollector(processor.num_frames, processor.frame_step)
        schedule: dict[int, list[tuple[int, NDArray[np.float64]]]] = defaultdict(list)
        for row, track in enumerate(self.box_tracks):
            for number, box in zip(track.frames.tolist(), track.boxes, strict=True):
                schedule[number].append((row, box))
        for number, image in self.frames.read(list(schedule), skip_unreadable=skip_unreadable):
            for row, box in schedule.pop(number):
                clip = None
                if isinstance(image, ValueError):
                    report.unreadable.append((row, str(image)))
                elif (cut := self.boxes.cut(image, box)) is None:
                    report.dropped_boxes += 1
                else:
                    pixels, clipped = cut
                    report.clipped_boxes += clipped
                    report.ranges[row] = (report.ranges.get(row, (number,))[0], number)
                    if collector.takes(row):
                        clip = collector.add(row, processor.resize([pixels])[0])
                if clip is None and number == self.box_tracks[row].frames[-1]:
                    clip = collector.close(row)
                if clip is not None:
                    yield row, clip, number

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


class _VideoBatches(IterableDataset[ClipBatch]):
    """Clips of videos in the order in which they are full, no batch of two videos; one worker decodes each video."""

    def __init__(
        self,
        videos: Sequence[VideoSource],
        processor: ClipProcessor,
        batch_size: int,
        *,
        skip_unreadable: bool = False,
    ) -> None:
        self.videos, self.processor, self.batch_size = videos, processor, batch_size
        self.skip_unreadable = skip_unreadable

    def __iter__(self) -> Iterator[ClipBatch]:
        worker, first = get_worker_info(), 0
        for place, video in enumerate(self.videos):
            if worker is None or place % worker.num_workers == worker.id:
                yield from self._batches(video, first)
            first += len(video.records)

    def _batches(self, video: VideoSource, first: int) -> Iterator[ClipBatch]:
        rows: list[int] = []
        images: list[Tensor] = []
        report, passed = SourceReport(), 0
        for row, clip, number in video.clips(self.processor, report, skip_unreadable=self.skip_unreadable):
            rows.append(first + row)
            images.append(clip)
            if len(rows) == self.batch_size:
                yield ClipBatch(0, rows, torch.stack(images), number - passed, report.take(first))
                rows, images, passed = [], [], number
        stacked = torch.stack(images) if images else torch.empty(0)
        yield ClipBatch(0, rows, stacked, video.total_frames - passed, report.take(first))


class ClipCollector:
    """Collects the frames of many open tracklets into clips, as :func:`consecutive_clips` cuts them.

    It is for frames that arrive once and in order, such as a video's. It holds less than one clip per open tracklet,
    whatever the length of the video.

    Args:
        num_frames: Frames per clip.
        frame_step: Frames from one frame of a clip to the next.

    Example:
        >>> collector = ClipCollector(num_frames=2)
        >>> image = torch.zeros(3, 8, 4, dtype=torch.uint8)
        >>> collector.takes(0) and collector.add(0, image) is None
        True
        >>> collector.close(0).shape
        torch.Size([2, 3, 8, 4])
    """

    def __init__(self, num_frames: int, frame_step: int = 1) -> None:
        check_clip_plan(num_frames, frame_step)
        self.num_frames = num_frames
        self.frame_step = frame_step
        self._seen: dict[int, int] = {}
        self._waiting: dict[int, list[Tensor]] = {}

    def takes(self, tracklet: int) -> bool:
        """Count one more frame of a tracklet, and return whether a clip takes it."""
        place = self._seen.get(tracklet, 0)
        self._seen[tracklet] = place + 1
        return place % self.frame_step == 0

    def add(self, tracklet: int, image: Tensor) -> Tensor | None:
        """Add a frame ``(3, H, W)``; return the clip ``(num_frames, 3, H, W)`` once it is full."""
        waiting = self._waiting.setdefault(tracklet, [])
        waiting.append(image)
        return self._clip(tracklet) if len(waiting) == self.num_frames else None

    def close(self, tracklet: int) -> Tensor | None:
        """End a tracklet; return the frames that are left as one looped clip, or None if there are none."""
        self._seen.pop(tracklet, None)
        return self._clip(tracklet) if self._waiting.get(tracklet) else None

    def _clip(self, tracklet: int) -> Tensor:
        images = self._waiting.pop(tracklet)
        return torch.stack([images[place % len(images)] for place in range(self.num_frames)])


class TrackletSource:
    """Tracklets whose frames are cut out already.

    Names that are missing become the tracklet's place, from 1. Track ids are the names where all of these are whole
    numbers, else places.

    Args:
        tracklets: The tracklets.
        path: The folder or table that lists them, if any.

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
            Record(name, number, tracklet.pid, tracklet.camid, tracklet.person, tracklet.camera)
            for name, number, tracklet in zip(names, track_numbers(names), tracklets, strict=True)
        ]
        self.lengths = [len(tracklet) for tracklet in tracklets]
        self.total_frames = sum(self.lengths)

    def batches(
        self, parts: Sequence[range], processor: ClipProcessor, batch_size: int, *, skip_unreadable: bool = False
    ) -> Dataset[ClipBatch]:
        """Decode the clips of one tracklet after another; see :class:`ClipSource`.

        Args:
            parts: Tracklets of each part.
            processor: How clips are cut and resized.
            batch_size: Clips per batch; the last batch of a part may be smaller.
            skip_unreadable: Whether a frame that does not decode is replaced by the nearest one of its clip that does,
                and a clip without any left out, rather than an error that names the frame.
        """
        return _TrackletBatches(self, parts, processor, batch_size, skip_unreadable)

    def max_workers(self) -> int:
        """Return how many workers can decode at once: any number, or none for frames in memory."""
        in_memory = isinstance(self.tracklets[0].frames, Tensor | np.ndarray)
        return 0 if in_memory else len(self.tracklets)

    def middle_frames(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Decode the middle frame of each named tracklet; see :class:`ClipSource`."""
        wanted = set(names)
        return {
            record.name: tracklet.read(len(tracklet) // 2)
            for record, tracklet in zip(self.records, self.tracklets, strict=True)
            if record.name in wanted
        }


class _TrackletBatches(Dataset[ClipBatch]):
    """Batches of the clips of tracklets, part by part, each decoded when its number is asked for."""

    def __init__(
        self,
        source: TrackletSource,
        parts: Sequence[range],
        processor: ClipProcessor,
        batch_size: int,
        skip_unreadable: bool,
    ) -> None:
        self.source, self.parts, self.processor = source, parts, processor
        self.batch_size, self.skip_unreadable = batch_size, skip_unreadable
        self.plan = processor.num_frames, processor.frame_step
        counts = [count_clips(length, *self.plan) for length in source.lengths]
        self._first_clip = np.concatenate([[0], np.cumsum(counts)])  # of each tracklet of the source
        clips = [int(self._first_clip[part.stop] - self._first_clip[part.start]) for part in parts]
        self._first_batch = np.concatenate([[0], np.cumsum([-(-count // batch_size) for count in clips])]).astype(int)

    def __len__(self) -> int:
        return int(self._first_batch[-1])

    def __getitem__(self, index: int) -> ClipBatch:
        number = int(np.searchsorted(self._first_batch, index, "right")) - 1
        part = self.parts[number]
        first = int(self._first_clip[part.start]) + (index - int(self._first_batch[number])) * self.batch_size
        last = min(first + self.batch_size, int(self._first_clip[part.stop]))
        rows: list[int] = []
        images: list[Tensor] = []
        report, progress = SourceReport(), 0
        for clip in range(first, last):
            row = int(np.searchsorted(self._first_clip, clip, "right")) - 1
            place = clip - int(self._first_clip[row])
            length, span = self.source.lengths[row], self.plan[0] * self.plan[1]
            progress += min(span, length - place * span)
            frames, errors = read_clip(
                self.source.tracklets[row],
                clip_places(length, place, *self.plan),
                skip_unreadable=self.skip_unreadable,
            )
            report.unreadable += [(row, error) for error in errors]
            if frames:
                rows.append(row)
                images.append(self.processor.resize(frames))
        return ClipBatch(number, rows, torch.stack(images) if images else torch.empty(0), progress, report)


def track_numbers(names: Sequence[str]) -> list[int]:
    """Return the names as int64 numbers if all are different whole numbers that fit, else places from 1."""
    if all(name.isascii() and name.isdigit() and len(name) < 20 for name in names):
        numbers = [int(name) for name in names]
        if max(numbers, default=0) < 2**63 and len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))
