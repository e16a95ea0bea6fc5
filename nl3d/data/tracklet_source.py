"""Tracklets whose frames are cut out already, as batches of clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nl3d.data.clips.batches import ClipBatch, Record, SourceReport, track_numbers
from nl3d.data.clips.dataset import read_clip
from nl3d.data.clips.processor import ClipProcessor
from nl3d.data.clips.sampling import clip_places, count_clips
from nl3d.data.tracklets import Tracklet, is_image


class TrackletSource:
    """Tracklets whose frames are cut out already.

    Names that are missing become the tracklet's place, from 1. Track ids are the names where all of these are whole
    numbers, else places.

    Args:
        tracklets: The tracklets.
        path: The folder or table that lists them, if any.
        first: Place of the first tracklet, from 0.

    Raises:
        ValueError: If there are none, or two have the same name.
    """

    def __init__(self, tracklets: Sequence[Tracklet], path: Path | None = None, *, first: int = 0) -> None:
        if len(tracklets) == 0:
            raise ValueError("source must hold at least one tracklet, got none")
        self.path = path.resolve() if path is not None else None
        self.tracks: Path | None = None
        self.tracklets = tracklets
        names = [tracklet.name or str(place) for place, tracklet in enumerate(tracklets, first + 1)]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise ValueError(f"tracklets must have names of their own, got {repeated[0]!r} more than once")
        self.records = [
            Record(name, number, tracklet.pid, tracklet.camid, tracklet.person, tracklet.camera)
            for name, number, tracklet in zip(names, track_numbers(names), tracklets, strict=True)
        ]
        self.lengths = [len(tracklet) for tracklet in tracklets]
        self.total_frames = sum(self.lengths)

    def part(self, rows: range) -> TrackletSource:
        """Return some tracklets that follow each other as a source of their own."""
        named = [replace(self.tracklets[row], name=self.records[row].name) for row in range(rows.start, rows.stop)]
        return TrackletSource(named, self.path)

    def record(self, row: int) -> Record:
        """Return what is known of a tracklet."""
        return self.records[row]

    def batches(
        self, parts: Sequence[range], processor: ClipProcessor, batch_size: int, *, skip_unreadable: bool = False
    ) -> Dataset[ClipBatch]:
        """Return a data set of batches, for a ``DataLoader`` with ``batch_size=None``.

        No batch holds clips of two parts, so that the vectors of a part do not depend on the others.

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
        frames: Any = self.tracklets[0].frames
        return 0 if isinstance(frames, Tensor | np.ndarray) or is_image(frames[0]) else len(self.tracklets)

    def middle_frames(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Decode the middle frame of each named tracklet, in its own size."""
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
