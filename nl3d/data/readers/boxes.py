"""Boxes of tracked people in MOTChallenge text: ``frame,id,left,top,width,height,...``, what every tracker writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class BoxTrack:
    """Boxes of one person, one a frame, in order of time.

    Args:
        track_id: The number the tracker gave.
        frames: Frame numbers, from 1, ascending, int64 ``(n,)``; frames without a box are simply missing.
        boxes: ``left, top, width, height`` in pixels, float64 ``(n, 4)``.
    """

    track_id: int
    frames: NDArray[np.int64]
    boxes: NDArray[np.float64]


def read_mot(path: str | Path) -> list[BoxTrack]:
    """Read a MOTChallenge text file, its tracks sorted by id.

    Columns are separated by commas or white space; numbers may be written as floats; columns after the sixth
    (confidence, class, ...) are not read. Empty lines and lines that start with ``#`` are passed over.

    Source: Milan et al. 2016, arXiv:1603.00831, Sec. 3.3 (the file format).

    Args:
        path: The text file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line does not parse, names a frame before 1 or a negative track, has a box without area or a
            number that is not finite, or repeats a track in a frame; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"tracks file {str(path)!r} does not exist")
    frames: list[int] = []
    track_ids: list[int] = []
    boxes: list[list[float]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig") as text:
            for number, line in enumerate(text, 1):
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                try:
                    frame, track_id, box = _parse_line(line)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: {error}, got {line.strip()[:80]!r}") from None
                frames.append(frame)
                track_ids.append(track_id)
                boxes.append(box)
                lines.append(number)
    except UnicodeDecodeError as error:
        raise ValueError(f"tracks file {str(path)!r} must be text in MOTChallenge format, got binary data") from error
    if not frames:
        raise ValueError(f"tracks file {str(path)!r} must hold at least one box, got none")
    return _group(path, np.array(frames), np.array(track_ids), np.array(boxes, dtype=np.float64), np.array(lines))


def _parse_line(line: str) -> tuple[int, int, list[float]]:
    columns = line.split(",") if "," in line else line.split()
    if len(columns) < 6:
        raise ValueError("a line must have at least six columns: frame,id,left,top,width,height")
    try:
        values = [float(column) for column in columns[:6]]
    except ValueError:
        raise ValueError("frame,id,left,top,width,height must be numbers") from None
    if not all(map(math.isfinite, values)):
        raise ValueError("frame,id,left,top,width,height must be finite")
    frame, track_id, _, _, width, height = values
    if frame != int(frame) or frame < 1:
        raise ValueError("frame must be a whole number from 1 on")
    if track_id != int(track_id) or track_id < 0:
        raise ValueError("id must be a whole number from 0 on (a detector's -1 needs a tracker first)")
    if width <= 0 or height <= 0:
        raise ValueError("width and height must be above 0")
    return int(frame), int(track_id), values[2:]


def _group(
    path: Path,
    frames: NDArray[np.int64],
    track_ids: NDArray[np.int64],
    boxes: NDArray[np.float64],
    lines: NDArray[np.int64],
) -> list[BoxTrack]:
    order = np.lexsort((frames, track_ids))
    frames, track_ids, boxes, lines = frames[order], track_ids[order], boxes[order], lines[order]
    repeated = np.flatnonzero((frames[1:] == frames[:-1]) & (track_ids[1:] == track_ids[:-1]))
    if len(repeated):
        first, second = sorted(lines[[repeated[0], repeated[0] + 1]])
        raise ValueError(
            f"{path}, line {second}: a track must have one box a frame, "
            f"but track {track_ids[repeated[0]]} has another in frame {frames[repeated[0]]} on line {first}"
        )
    starts = np.flatnonzero(np.diff(track_ids)) + 1
    return [
        BoxTrack(int(ids[0]), numbers, corners)
        for ids, numbers, corners in zip(
            np.split(track_ids, starts), np.split(frames, starts), np.split(boxes, starts), strict=True
        )
    ]


def clip_box(box: NDArray[np.float64], height: int, width: int) -> tuple[tuple[int, int, int, int] | None, bool]:
    """Round a box to whole pixels and cut it to the frame.

    Args:
        box: ``left, top, width, height`` in pixels.
        height: Height of the frame.
        width: Width of the frame.

    Returns:
        ``(top, bottom, left, right)`` of the pixels inside, or None where there are none; and whether anything of the
        box lay outside.

    Example:
        >>> clip_box(np.array([-4.0, 10.0, 20.0, 50.0]), height=40, width=100)
        ((10, 40, 0, 16), True)
    """
    left, top = round(box[0]), round(box[1])
    right, bottom = max(round(box[0] + box[2]), left + 1), max(round(box[1] + box[3]), top + 1)
    inside = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    outside = inside != (top, bottom, left, right)
    if inside[0] >= inside[1] or inside[2] >= inside[3]:
        return None, True
    return inside, outside
