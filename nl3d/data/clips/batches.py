"""Batches of clips on their way to the network, and what became of the frames that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


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


def track_numbers(names: Sequence[str]) -> list[int]:
    """Return the names as int64 numbers if all are different whole numbers that fit, else places from 1."""
    if all(name.isascii() and name.isdigit() and len(name) < 20 for name in names):
        numbers = [int(name) for name in names]
        if max(numbers, default=0) < 2**63 and len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))
