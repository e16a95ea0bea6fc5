"""Frames that a video's container has lost, found from its packets without decoding.

FFmpeg searches a damaged Matroska or FLV file for the next packet that it understands, reports what it skipped in its
log alone, and goes on. The frames behind would then count too low.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple

_REORDERED = 32  # packets; no frame is shown later than this many packets after its own
_CUT_SHORT = "ended prematurely"  # of a file that is cut off, which loses nothing before its end
_LOG = Lock()  # the level of FFmpeg's log is one for all threads


class Packets(NamedTuple):
    """Frames of a video as far as its packets show them.

    Attributes:
        total: Frames in all, the lost ones included.
        gaps: Time of the first frame behind each gap, in the stream's unit, and how many frames are lost before it.
        damage: Reason why frames are lost, as FFmpeg has it; empty if none are.
        numbered: Whether the number of lost frames is known, which takes a constant frame rate.
    """

    total: int
    gaps: tuple[tuple[int, int], ...] = ()
    damage: str = ""
    numbered: bool = True


def scan_packets(opened: AbstractContextManager[tuple[Any, Any]], last: int, av: ModuleType) -> Packets:
    """Count the packets of a stream up to a frame, and find what was lost between them.

    The count that a container announces may be an estimate, missing, or without regard to cut parts (edit lists), so
    packets are counted unless it and the duration suffice. Frames are counted as lost only where FFmpeg reports damage
    and the times have a gap: cameras also leave out frames.

    Args:
        opened: Opens container and video stream; opening reads ahead.
        last: Number of the last frame that matters, from 1.
        av: The module.
    """
    times: list[int] = []
    count = 0
    with _heard_errors(av) as heard, opened as (container, stream):
        played = (stream.duration or 0) * (stream.time_base or 0) * (stream.average_rate or 0)
        if stream.frames >= last and (played >= last or not stream.duration):
            return Packets(last)
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                count += 1
                if packet.pts is not None:
                    times.append(packet.pts)
            if count >= last + _REORDERED or (count >= last and not heard):
                break
        rate = stream.average_rate and float(stream.average_rate * stream.time_base)
        name = container.format.name
    reasons = [text.strip() for _, source, text in heard if source == name]
    damage = next((text for text in reasons if _CUT_SHORT not in text), "")
    if not damage:
        return Packets(count)
    gaps = _find_gaps(sorted(times), rate)
    if gaps is None:
        return Packets(count, damage=damage, numbered=False)
    return Packets(count + sum(lost for _, lost in gaps), gaps, damage)


def _find_gaps(times: Sequence[int], rate: float | None) -> tuple[tuple[int, int], ...] | None:
    """Return the gaps between times that otherwise have one distance; None if their distance varies."""
    steps = [after - before for before, after in pairwise(times)]
    if not steps:
        return ()
    step = 1 / rate if rate else float(min(steps))
    frames = [round(value / step) for value in steps]
    if any(n < 1 or abs(value - n * step) > 1 + 0.01 * step for n, value in zip(frames, steps, strict=True)):
        return None
    return tuple((time, count - 1) for time, count in zip(times[1:], frames, strict=True) if count > 1)


@contextmanager
def _heard_errors(av: ModuleType) -> Iterator[list[tuple[int, str, str]]]:
    """Collect level, source and text of the errors that FFmpeg logs in this thread."""
    with _LOG:
        before = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # it also skips what another video has said
        try:
            with av.logging.Capture() as heard:
                yield heard
        finally:
            av.logging.set_level(before[0])
            av.logging.set_skip_repeated(before[1])
