"""Boxes of tracked people: what trackers write, and ground truth with classes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nl3d.data.frames.video import FrameStream, open_frames
from nl3d.data.labels import parse_label

ALL_CLASSES = "all"
"""Entry of :attr:`BoxOptions.classes` that keeps every class."""

UNTRACKED = 2**64 - 1  # the id of an object without a track in DeepStream
MAX_PIXELS = 1e6  # no coordinate of a box lies further from the frame
MOT_CLASSES = dict(
    enumerate(
        (
            *("pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non-motorised vehicle"),
            *("static person", "distractor", "occluder", "occluder on the ground", "full occluder", "reflection"),
            "crowd",
        ),
        1,
    )
)


@dataclass(frozen=True)
class BoxOptions:
    """How to read a file of boxes.

    Args:
        format: Name from :data:`FORMATS`; detected from the file if left out, and asked for where it could be two.
        first_frame: Number that the boxes give to the first frame of the video or folder; the format's own if left out.
        classes: Classes to keep, by number or name, or ``("all",)``. If left out, ground truth keeps pedestrians, and a
            tracker's file keeps every class.
        skip_bad: Whether to leave out and count rows that are no box of a track (id -1, no area, not finite), rather
            than to refuse the file.

    Raises:
        ValueError: If the format is unknown or the first frame negative.
    """

    format: str | None = None
    first_frame: int | None = None
    classes: tuple[str, ...] | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.first_frame is not None and self.first_frame < 0:
            raise ValueError(f"first_frame must be at least 0, got {self.first_frame}")
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))

    def to_json(self) -> str:
        """Return the options as JSON, for metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BoxOptions:
        """Return the options that :meth:`to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, eq=False)
class BoxTrack:
    """Boxes of one person, one per frame, in order of time.

    Args:
        track_id: Number that the tracker gave.
        frames: Frame numbers, ascending, int64 ``(n,)``; the first frame of the video is 1. Frames without a box are
            absent.
        boxes: ``left, top, width, height`` in pixels, float64 ``(n, 4)``.
    """

    track_id: int
    frames: NDArray[np.int64]
    boxes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Tracks of a file, and counts of what was left out.

    Args:
        tracks: The tracks, sorted by id.
        left_out: Number of boxes left out for each reason; empty if there were none.
        classes: Number of boxes kept of each class, if there are several; else empty.
        first_frame: Number that the file gives to the first frame of the video.
        path: The file.
        options: How it was read.
    """

    tracks: list[BoxTrack]
    left_out: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    first_frame: int = 1
    path: str = ""
    options: BoxOptions = field(default_factory=BoxOptions)

    def open_video(self, video: str | Path) -> FrameStream:
        """Open the video of these boxes, and refuse what does not fit together.

        Args:
            video: A video file, or a folder of a video's images.

        Raises:
            FileNotFoundError: If it does not exist.
            ValueError: If it cannot be read, lacks a frame with a box, or the boxes are corners for all it seems.
        """
        frames = open_frames(video, first_frame=self.first_frame if self.options.first_frame is None else None)
        frames.require({number for track in self.tracks for number in track.frames.tolist()})
        if self.options.format is None:
            _, image = next(frames.read({frames.first}, skip_unreadable=True))
            if isinstance(image, Tensor):
                self._check_corners(*image.shape[-2:])
        return frames

    def _check_corners(self, height: int, width: int) -> None:
        """Refuse ``x1,y1,x2,y2`` in place of ``left,top,width,height``, which most boxes reveal together."""
        left, top, right, bottom = np.concatenate([track.boxes for track in self.tracks]).T
        inside = (
            (left >= 0) & (top >= 0) & (right > left) & (bottom > top) & (right <= width + 1) & (bottom <= height + 1)
        )
        outside = (left + right > width + 1) | (top + bottom > height + 1)
        if inside.all() and 2 * outside.sum() > len(left):
            raise ValueError(
                f"tracks file {self.path!r} must give boxes as left,top,width,height, but {outside.sum()} of "
                f"{len(left)} reach outside the frame of {width} x {height} pixels, and all lie inside as x1,y1,x2,y2; "
                "subtract the first corner from the second, or name the format with --box-format "
                "(BoxOptions(format=...)) if they are right as they are"
            )


class BadBoxError(ValueError):
    """A row that is no box of a track; :attr:`BoxOptions.skip_bad` leaves it out."""


class Row(NamedTuple):
    """One box as the file has it: four numbers are ``left, top, width, height``; ``extra`` are the later columns."""

    frame: int
    track_id: int
    box: tuple[float, float, float, float]
    extra: tuple[str, ...]


class BoxFormat(NamedTuple):
    """What a format makes of a row's later columns.

    Args:
        label: Gives the class of a row, or None.
        counts: Gives whether the row counts; only asked of people.
        names: Names of classes that are numbered.
        people: Classes kept by default; every class if empty.
    """

    label: Callable[[tuple[str, ...]], str | None]
    counts: Callable[[tuple[str, ...]], bool]
    names: dict[str, str]
    people: tuple[str, ...]


def read_boxes(path: str | Path, options: BoxOptions | None = None) -> Boxes:
    """Read a file of boxes.

    Columns are separated by commas or white space. Empty lines and lines that start with ``#`` are skipped.

    Source: Milan et al. 2016, arXiv:1603.00831, Sec. 3.3 (MOTChallenge).

    Args:
        path: The text file.
        options: How to read it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line does not parse, names a frame before the first or a negative track, has a box without area
            or a number that is not finite, or repeats a track in a frame; the message names the line. If the file can
            be read in two ways; the message names the option that decides.
    """
    options = options or BoxOptions()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"tracks file {str(path)!r} does not exist")
    first_frame = 1 if options.first_frame is None else options.first_frame
    left_out: Counter[str] = Counter()
    rows: list[Row] = []
    lines: list[int] = []
    for number, line in _lines(path):
        try:
            rows.append(_parse_row(line, first_frame))
            lines.append(number)
        except BadBoxError as error:
            if not options.skip_bad:
                raise ValueError(
                    f"{path}, line {number}: {error}, got {line[:80]!r}; --skip-bad-boxes "
                    "(BoxOptions(skip_bad=True)) leaves such rows out"
                ) from None
            left_out["bad rows"] += 1
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}, got {line[:80]!r}") from None
    if not rows:
        raise ValueError(f"tracks file {str(path)!r} must hold at least one box, got none")
    kept, classes = _choose(path, rows, options, left_out)
    rows = [rows[place] for place in kept]
    if options.format is None and all(abs(value) < 2 for row in rows for value in row.box):
        raise ValueError(
            f"tracks file {str(path)!r} must give boxes in pixels, got none above 2, which are shares of the frame; "
            "multiply them by its size, or pass --box-format (BoxOptions(format=...)) if they are pixels"
        )
    tracks = _group(path, rows, np.array(lines)[kept], first_frame)
    return Boxes(tracks, dict(left_out), classes if len(classes) > 1 else {}, first_frame, str(path), options)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is neither empty nor a comment."""
    with path.open(encoding="utf-8-sig") as text:
        try:
            for number, line in enumerate(text, 1):
                if "\0" in line:
                    raise ValueError(
                        f"tracks file {str(path)!r} must be text in UTF-8, got a zero byte on line {number}"
                    )
                line = line.strip()
                if line and not line.startswith("#"):
                    yield number, line
        except UnicodeDecodeError as error:
            raise ValueError(
                f"tracks file {str(path)!r} must be text in UTF-8, got other bytes ({error.reason}); save it as UTF-8"
            ) from error


def _parse_row(line: str, first_frame: int) -> Row:
    columns = [column.strip() for column in line.split(",")] if "," in line else line.split()
    if len(columns) < 6:
        hint = "; replace the semicolons by commas" if ";" in line else ""
        raise ValueError(f"a line must have at least six columns: frame,id,left,top,width,height{hint}")
    left, top, width, height = map(_number, columns[2:6])
    frame, track_id = _whole(columns[0], "frame"), _whole(columns[1], "id")
    if frame < first_frame:
        hint = "; for boxes that count frames from 0 pass --first-frame 0 (BoxOptions(first_frame=0))"
        raise ValueError(f"frame must be a whole number from {first_frame} on" + hint * (frame == 0))
    if track_id < 0 or track_id >= UNTRACKED:
        raise BadBoxError(f"id must be a whole number from 0 to 2**64 - 2; {track_id} marks a box without a track")
    if width <= 0 or height <= 0:
        raise BadBoxError("width and height must be above 0")
    return Row(frame, track_id, (left, top, width, height), tuple(columns[6:]))


_NUMBER = re.compile(r"[+-]?(?:\d+\.?(\d*)|\.(\d+))(?:e([+-]?\d{1,4}))?", re.ASCII | re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


def _number(text: str) -> float:
    _check_number(text)
    value = float(text)
    if abs(value) > MAX_PIXELS:
        raise BadBoxError(f"left,top,width,height must lie within {MAX_PIXELS:.0f} pixels")
    return value


def _whole(text: str, what: str) -> int:
    """Parse a whole number exactly, also where it is written as a float; all its digits must be there."""
    number = _check_number(text)
    try:
        if int(number[3] or 0) <= len(number[1] or number[2] or ""):  # 1.23457e+06 has lost a digit
            return int(parse_label(text))
    except ValueError:
        pass
    raise ValueError(f"{what} must be a whole number, written with all its digits")


def _check_number(text: str) -> re.Match[str]:
    if number := _NUMBER.fullmatch(text):
        return number
    if _NOT_FINITE.fullmatch(text):
        raise BadBoxError("frame,id,left,top,width,height must be finite")
    raise ValueError("frame,id,left,top,width,height must be numbers; remove a header or begin its line with #")


def _mot_label(extra: tuple[str, ...]) -> str | None:
    """Class that trackers write after the confidence; further columns are absent, a score, or -1."""
    if len(extra) in (2, 3) or (len(extra) > 3 and all(_is(column, -1) for column in extra[2:])):
        label = _class_label(extra[1])
        return None if label == "-1" else label
    return None


def _class_label(text: str) -> str | None:
    """Canonical text of a class; None for what is none, such as a fraction."""
    try:
        return parse_label(text)
    except ValueError:
        return None


def _is(text: str, *values: float) -> bool:
    return bool(_NUMBER.fullmatch(text)) and float(text) in values


FORMATS: dict[str, BoxFormat] = {
    "mot": BoxFormat(_mot_label, lambda extra: True, {}, ()),
    "mot-gt": BoxFormat(
        lambda extra: _class_label(extra[1]) if len(extra) == 3 else None,
        lambda extra: not extra or not _is(extra[0], 0),
        {str(number): name for number, name in MOT_CLASSES.items()},
        ("1",),
    ),
}
"""Formats of boxes by name: ``mot`` (a tracker's results) and ``mot-gt`` (MOTChallenge ground truth)."""


def _detect(path: Path, rows: Sequence[Row]) -> str:
    """Tell a tracker's results from ground truth, and ask where the two readings differ."""
    if all(len(row.extra) == 3 for row in rows) and all(
        _is(row.extra[0], 0, 1) and _is(row.extra[1], *MOT_CLASSES) and _is_share(row.extra[2]) for row in rows
    ):
        flagged = any(_is(row.extra[0], 0) for row in rows)
        if flagged or all(_is(row.extra[1], 1) for row in rows):
            return "mot-gt"
    elif (
        all(len(row.extra) == 4 and all(_is(column, -1) for column in row.extra[1:]) for row in rows)
        and {float(row.extra[0]) for row in rows if _is(row.extra[0], 0, 1)} == {0, 1}
        and all(_is(row.extra[0], 0, 1) for row in rows)
    ):
        pass  # a flag of MOT15's ground truth, or a confidence
    else:
        return "mot"
    raise ValueError(
        f"tracks file {str(path)!r} can be read as a tracker's results, where every box counts, or as MOTChallenge "
        "ground truth, where only pedestrians that are to be considered do; pass --box-format mot or --box-format "
        'mot-gt (BoxOptions(format="mot") or "mot-gt")'
    )


def _is_share(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and 0 <= float(text) <= 1


def _choose(
    path: Path, rows: Sequence[Row], options: BoxOptions, left_out: Counter[str]
) -> tuple[list[int], dict[str, int]]:
    """Places of the rows to keep, and the number kept of each class."""
    form = FORMATS[options.format or _detect(path, rows)]
    labels = [form.label(row.extra) for row in rows]
    title = {label: f"{label} ({form.names[label]})" if label in form.names else label for label in labels if label}
    wanted = set(options.classes if options.classes is not None else form.people or (ALL_CLASSES,))
    if options.classes is not None and wanted != {ALL_CLASSES}:
        known = {*title, *(form.names.get(label) for label in title)}
        if not known.issuperset(wanted):
            have = ", ".join(sorted(title.values())) or "no column of classes"
            raise ValueError(
                f"classes must be classes of the tracks file {str(path)!r}, which has {have}; "
                f"got {', '.join(sorted(wanted - known))}"
            )
    kept: list[int] = []
    classes: Counter[str] = Counter()
    for place, (row, label) in enumerate(zip(rows, labels, strict=True)):
        if label is not None and not wanted & {ALL_CLASSES, label, form.names.get(label)}:
            left_out[f"class {title[label]}"] += 1
        elif (label is None or label in form.people) and ALL_CLASSES not in wanted and not form.counts(row.extra):
            left_out["marked as not to be considered"] += 1
        else:
            kept.append(place)
            if label is not None:
                classes[title[label]] += 1
    if not kept:
        reasons = ", ".join(f"{count} of {reason}" for reason, count in left_out.items())
        raise ValueError(
            f"tracks file {str(path)!r} must hold a box of a person that counts, got none: {reasons} left out; "
            "pass --classes (BoxOptions(classes=...)) for other classes"
        )
    return kept, dict(classes)


def _group(path: Path, rows: Sequence[Row], lines: NDArray[np.int64], first_frame: int) -> list[BoxTrack]:
    places: dict[int, dict[int, int]] = {}
    for place, row in enumerate(rows):
        track = places.setdefault(row.track_id, {})
        if row.frame in track:
            raise ValueError(
                f"{path}, line {lines[place]}: a track must have one box per frame, "
                f"but track {row.track_id} has another in frame {row.frame} on line {lines[track[row.frame]]}"
            )
        track[row.frame] = place
    return [
        BoxTrack(
            track_id,
            np.array(sorted(track), dtype=np.int64) - first_frame + 1,
            np.array([rows[track[frame]].box for frame in sorted(track)], dtype=np.float64),
        )
        for track_id, track in sorted(places.items())
    ]


def cut_box(image: Tensor, box: NDArray[np.float64]) -> tuple[Tensor, bool] | None:
    """Round a box to whole pixels, at least one each way, and cut it out of a frame.

    Args:
        image: The frame.
        box: ``left, top, width, height`` in pixels.

    Shape:
        - Input: ``(3, H, W)``
        - Output: ``(3, h, w)``, a view

    Returns:
        The pixels, and whether some of the box lay outside the frame; None if all of it did.

    Example:
        >>> pixels, clipped = cut_box(torch.zeros(3, 40, 100), np.array([-4.0, 10.0, 20.0, 50.0]))
        >>> pixels.shape, clipped
        (torch.Size([3, 30, 16]), True)
    """
    height, width = image.shape[-2:]
    left, top = round(box[0]), round(box[1])
    right, bottom = max(round(box[0] + box[2]), left + 1), max(round(box[1] + box[3]), top + 1)
    inside = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    if inside[0] >= inside[1] or inside[2] >= inside[3]:
        return None
    return image[:, inside[0] : inside[1], inside[2] : inside[3]], inside != (top, bottom, left, right)
