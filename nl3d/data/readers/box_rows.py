"""Rows of files of boxes: their lines, their values, and the checks that every format shares."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nl3d.data.labels import parse_label
from nl3d.data.readers.columns import BoxRows

UNTRACKED = 2**64 - 1  # the id of an object without a track in DeepStream
MAX_PIXELS = 1e6  # no coordinate of a box lies further from the frame
MAX_FRAME = 2**31


class _FirstFrameError(ValueError):
    """Frames count from another number, so that leaving out rows would not help."""


class Row(NamedTuple):
    """One box as its file has it; ``box`` is ``left, top, width, height``, ``extra`` are columns not yet understood."""

    frame: int
    track_id: int
    box: tuple[float, float, float, float]
    label: str | None = None
    counts: bool = True
    extra: tuple[str, ...] = ()
    line: int = 0


@dataclass
class Rows:
    """Rows of a file as they are read; those that are no box of a track are refused, or left out and counted."""

    first_frame: int
    skip_bad: bool
    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path | BoxRows, line: int, text: str, parse: Callable[[], Row | None]) -> None:
        """Parse and check one row; errors name file and line."""
        try:
            row = parse()
            if row is None:
                self.left_out["regions to ignore"] += 1
            else:
                self._check(row)
                self.rows.append(row._replace(line=line))
        except ValueError as error:
            remedy = "--skip-bad-boxes (BoxOptions(skip_bad=True)) leaves such rows out"
            if isinstance(error, _FirstFrameError):
                remedy = (
                    "if the boxes count frames from another number N, pass --first-frame N (BoxOptions(first_frame=N))"
                )
            elif self.skip_bad:
                self.left_out["bad rows"] += 1
                return
            raise ValueError(f"{path}, line {line}: {error}, got {text[:80]!r}; {remedy}") from None

    def _check(self, row: Row) -> None:
        if row.frame < self.first_frame:
            raise _FirstFrameError(f"frame must be a whole number from {self.first_frame} on")
        if row.frame >= MAX_FRAME:
            raise ValueError(f"frame must be a whole number below {MAX_FRAME}")
        if row.track_id < 0 or row.track_id >= UNTRACKED:
            raise ValueError(
                f"id must be a whole number from 0 to 2**64 - 2; {row.track_id} marks a box without a track"
            )
        if row.box[2] <= 0 or row.box[3] <= 0:
            raise ValueError("width and height must be above 0")


def read_lines(path: Path | BoxRows) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is neither empty nor a comment."""
    if isinstance(path, BoxRows):
        yield from enumerate(path.lines, 1)
        return
    with path.open(encoding="utf-8-sig") as text:
        try:
            for number, line in enumerate(text, 1):
                if "\0" in line:
                    raise ValueError(
                        f"file {str(path)!r} must be text in UTF-8, got a zero byte on line {number}; save it as UTF-8"
                    )
                line = line.strip()
                if line and not line.startswith("#"):
                    yield number, line
        except UnicodeDecodeError as error:
            raise ValueError(f"file {str(path)!r} must be text in UTF-8, got other bytes; save it as UTF-8") from error


NUMBER = re.compile(r"[+-]?(?:\d+\.?(\d*)|\.(\d+))(?:e([+-]?\d{1,4}))?", re.ASCII | re.IGNORECASE)


def parse_number(text: str) -> float:
    """Parse a coordinate, in pixels or as a share."""
    _check_number(text)
    value = float(text)
    if abs(value) > MAX_PIXELS:
        raise ValueError(f"left,top,width,height must lie within {MAX_PIXELS:.0f} pixels")
    return value


def parse_whole(text: str, what: str) -> int:
    """Parse a whole number exactly, also where it is written as a float; all its digits must be there."""
    number = _check_number(text)
    try:
        if int(number[3] or 0) <= len(number[1] or number[2] or ""):  # 1.23457e+06 has lost a digit
            return int(parse_label(text))
    except ValueError:
        pass
    raise ValueError(f"{what} must be a whole number, written with all its digits")


def _check_number(text: str) -> re.Match[str]:
    if number := NUMBER.fullmatch(text):
        return number
    raise ValueError("frame,id,left,top,width,height must be finite numbers; a header must begin with #")


def class_label(text: str) -> str | None:
    """Return the canonical text of a class; None for what is none, such as a fraction."""
    try:
        return parse_label(text)
    except ValueError:
        return None


def is_in(text: str, *values: float) -> bool:
    """Whether a text is one of some numbers."""
    return bool(NUMBER.fullmatch(text)) and float(text) in values
