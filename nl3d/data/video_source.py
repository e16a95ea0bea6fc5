"""Boxes in a video as batches of clips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from nl3d.data.clips.batches import ClipBatch, Record, SourceReport, track_numbers
from nl3d.data.clips.collector import ClipCollector
from nl3d.data.clips.processor import ClipProcessor
from nl3d.data.readers.boxes import BoxOptions, BoxSource, read_boxes


class VideoSource:
    """Boxes in a video, which is decoded once and in order, one frame held at a time.

    Args:
        path: The video, a file or a folder of its images.
        tracks: File of boxes, or boxes in memory.
        options: How to read the boxes.
    """

    def __init__(self, path: str | Path, tracks: BoxSource, options: BoxOptions | None = None) -> None:
        self.path: Path | None = Path(path).resolve()
        self.tracks: Path | None = Path(tracks).resolve() if isinstance(tracks, str | Path) else None
        self.boxes = read_boxes(tracks, options)
        self.box_tracks = self.boxes.tracks
        self.frames = self.boxes.open_video(path)
        names = [str(track.track_id) for track in self.box_tracks]
        self.records = [Record(name, number) for name, number in zip(names, track_numbers(names), strict=True)]
        self.total_frames = max(int(track.frames[-1]) for track in self.box_tracks)

    def batches(
        self, parts: Sequence[range], processor: ClipProcessor, batch_size: int, *, skip_unreadable: bool = False
    ) -> Dataset[ClipBatch]:
        """Return a data set of batches, for a ``DataLoader`` with ``batch_size=None``, cut as it decodes."""
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
        """Cut the middle box out of each named track, in its own size."""
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
