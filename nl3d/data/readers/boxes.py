"""Boxes of tracked people: what trackers write, and ground truth with classes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nl3d.data.frames.names import sort_names
from nl3d.data.frames.video import FrameStream, open_frames
from nl3d.data.readers.box_formats import FORMATS, BoxFormat, detect_format, detect_mot_format
from nl3d.data.readers.box_rows import Row, Rows
from nl3d.data.readers.columns import BoxRows

BoxSource: TypeAlias = "str | Path | Tensor | NDArray[Any] | Sequence[Sequence[float]] | Any"
"""A file of boxes, an array of them, or a data frame."""

ALL_CLASSES = "all"
"""Entry of :attr:`BoxOptions.classes` that keeps every class."""


@dataclass(frozen=True)
class BoxOptions:
    """How to read a file of boxes.

    Args:
        format: Name from :data:`FORMATS`; detected from the file if left out, and asked for where it could be two.
        first_frame: Number that the boxes give to the first frame of the video or folder; the format's own if left out.
        classes: Classes to keep, by number or name, or ``("all",)``. If left out, ground truth (``mot-gt``,
            ``visdrone``, ``kitti``) keeps people who are to be considered, and other formats keep every class.
        skip_bad: Whether to leave out and count rows that are no box of a track (id -1 or none, no area, too few
            columns, not finite), rather than to refuse the file.

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
        shares: Whether boxes are shares of the frame's size instead of pixels.
        first_frame: Number that the file gives to the first frame of the video.
        path: The file.
        options: How it was read.
    """

    tracks: list[BoxTrack]
    left_out: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    shares: bool = False
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
        if self.options.format is None and not self.shares:
            _, image = next(frames.read({frames.first}, skip_unreadable=True))
            if isinstance(image, Tensor):
                self._check_corners(*image.shape[-2:])
        return frames

    def cut(self, image: Tensor, box: NDArray[np.float64]) -> tuple[Tensor, bool] | None:
        """Cut one of these boxes out of a frame; see :func:`cut_box`."""
        height, width = image.shape[-2:]
        return cut_box(image, box * [width, height, width, height] if self.shares else box)

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


def read_boxes(source: BoxSource, options: BoxOptions | None = None) -> Boxes:
    """Read a file of boxes, or boxes in memory.

    Columns are separated by commas or white space. Empty lines and lines that start with ``#`` are skipped.

    Source: Milan et al. 2016, arXiv:1603.00831, Sec. 3.3 (MOTChallenge).

    Args:
        source: The file; or an array ``(n, 6)`` or wider with the columns of a text file, ``frame, id, left, top,
            width, height, ...``; or a data frame with columns of these names in any order, and, as known,
            ``confidence`` and ``class``. Boxes in memory are checked like lines of a file.
        options: How to read it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line does not parse, names a frame before the first or a negative track, has a box without area
            or a number that is not finite, or repeats a track in a frame; the message names the line. If the file can
            be read in two ways; the message names the option that decides.
    """
    options = options or BoxOptions()
    path = Path(source) if isinstance(source, str | Path) else BoxRows(source)
    if isinstance(path, Path) and not path.exists():
        raise FileNotFoundError(f"tracks file {str(path)!r} does not exist")
    detected = options.format or detect_format(path)
    name = detected or "mot"
    form = FORMATS[name]
    if isinstance(path, BoxRows) and name in ("ultralytics", "cvat"):
        raise ValueError(f"tracks must be a file for the format {name!r}, got boxes in memory")
    first_frame = form.first_frame if options.first_frame is None else options.first_frame
    read = Rows(first_frame, options.skip_bad)
    form.read(path, read)
    if detected is None and (name := detect_mot_format(path, read.rows)) != "mot":
        form, read = FORMATS[name], Rows(first_frame, options.skip_bad)
        form.read(path, read)
    rows = _choose(path, read, form, options)
    if options.format is None and not form.shares and all(abs(value) < 2 for row in rows for value in row.box):
        raise ValueError(
            f"tracks file {str(path)!r} must give boxes in pixels, got none above 2, which are shares of the frame; "
            f"multiply them by its size, or pass --box-format {name} (BoxOptions(format={name!r})) if they are pixels"
        )
    counts = Counter(form.title(row.label) for row in rows if row.label is not None)
    return Boxes(
        _group(path, rows, first_frame),
        left_out=dict(read.left_out),
        classes=dict(counts) if len(counts) > 1 and not form.people else {},
        shares=form.shares,
        first_frame=first_frame,
        path=str(path),
        options=options,
    )


def _choose(path: Path | BoxRows, read: Rows, form: BoxFormat, options: BoxOptions) -> list[Row]:
    """Return the rows of the wanted classes, and count the others."""
    if not read.rows:
        bad = f" but {read.left_out['bad rows']} bad rows" if read.left_out["bad rows"] else ""
        raise ValueError(f"tracks file {str(path)!r} must hold at least one box, got none{bad}")
    labels = {row.label for row in read.rows if row.label is not None}
    wanted = {name.casefold() for name in options.classes or form.people or (ALL_CLASSES,)}
    named = {label: {label.casefold(), form.names.get(label, label)} for label in labels}
    everything = ALL_CLASSES in wanted
    if options.classes is not None and not everything:
        unknown = wanted.difference(*named.values()) if named else wanted
        if unknown:
            have = ", ".join(map(form.title, sort_names(labels))) or "no column of classes"
            raise ValueError(
                f"classes must be classes of the tracks file {str(path)!r}, which has {have}; "
                f"got {', '.join(sorted(unknown))}"
            )
    chosen = {label for label in labels if everything or wanted & named[label]}
    rows = []
    for row in read.rows:
        if row.label is not None and row.label not in chosen:
            read.left_out[f"class {form.title(row.label)}"] += 1
        elif not row.counts and not everything and (row.label is None or row.label in form.people):
            read.left_out["marked as not to be considered"] += 1
        else:
            rows.append(row)
    if not rows:
        reasons = ", ".join(f"{count} of {reason}" for reason, count in read.left_out.items())
        raise ValueError(
            f"tracks file {str(path)!r} must hold a box of a person that counts, got none: {reasons} left out; "
            "pass --classes (BoxOptions(classes=...)) for other classes"
        )
    return rows


def _group(path: Path | BoxRows, rows: Sequence[Row], first_frame: int) -> list[BoxTrack]:
    tracks: dict[int, dict[int, Row]] = {}
    for row in rows:
        track = tracks.setdefault(row.track_id, {})
        other = track.setdefault(row.frame, row)
        if other is not row:
            raise ValueError(
                f"{path}, line {row.line}: a track must have one box per frame, "
                f"but track {row.track_id} has another in frame {row.frame} on line {other.line}"
            )
    return [
        BoxTrack(
            track_id,
            np.array(sorted(track), dtype=np.int64) - first_frame + 1,
            np.array([track[frame].box for frame in sorted(track)], dtype=np.float64),
        )
        for track_id, track in sorted(tracks.items())
    ]


def cut_box(image: Tensor, box: NDArray[np.float64]) -> tuple[Tensor, bool] | None:
    """Round a box ``left, top, width, height`` to whole pixels, at least one each way, and cut it out of a frame.

    Shape:
        - Input: ``(3, H, W)``
        - Output: ``(3, h, w)``, a view

    Returns:
        The pixels, and whether some of the box lay outside the frame; None if all of it did.
    """
    height, width = image.shape[-2:]
    left, top = round(box[0]), round(box[1])
    right, bottom = max(round(box[0] + box[2]), left + 1), max(round(box[1] + box[3]), top + 1)
    inside = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    if inside[0] >= inside[1] or inside[2] >= inside[3]:
        return None
    return image[:, inside[0] : inside[1], inside[2] : inside[3]], inside != (top, bottom, left, right)
