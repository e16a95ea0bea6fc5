"""Formats of files of boxes: what each calls a frame, a track, a box and a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

from nl3d.data.frames.names import number_files
from nl3d.data.readers.box_rows import NUMBER, Row, Rows, class_label, is_in, parse_number, parse_whole, read_lines
from nl3d.data.readers.columns import BoxRows


class BoxFormat(NamedTuple):
    """How to read a format.

    Args:
        description: A few words for ``--help`` and errors.
        read: Adds the rows of a file.
        names: Names of numbered classes.
        people: Classes that are kept by default; every class if empty.
        first_frame: Number of a video's first frame.
        shares: Whether boxes are shares of the frame's size.
    """

    description: str
    read: Callable[[Any, Rows], None]
    names: dict[str, str] = {}  # noqa: RUF012 - a named tuple's default, never changed
    people: tuple[str, ...] = ()
    first_frame: int = 1
    shares: bool = False

    def title(self, label: str) -> str:
        """Return number and name of a class."""
        return f"{label} ({self.names[label]})" if label in self.names else label


# Text: one line per box


def _text(parse: Callable[[list[str]], Row | None]) -> Callable[[Any, Rows], None]:
    """Make a reader of text out of what parses the columns of a line."""

    def read(path: Path | BoxRows, rows: Rows) -> None:
        for number, line in read_lines(path):
            rows.add(path, number, line, lambda line=line: parse(_split(line)))  # type: ignore[misc]

    return read


def _split(line: str) -> list[str]:
    return [column.strip() for column in line.split(",")] if "," in line else line.split()


def _parse_mot(columns: list[str]) -> Row:
    """Parse ``frame,id,left,top,width,height,confidence,class``; columns after these are absent, a score, or -1.

    Source: Milan et al. 2016, arXiv:1603.00831, Sec. 3.3.
    """
    if len(columns) < 6:
        hint = "; replace the semicolons by commas" if any(";" in column for column in columns) else ""
        raise ValueError(f"a line must have at least six columns: frame,id,left,top,width,height{hint}")
    extra = tuple(columns[6:])
    label = None
    if len(extra) in (2, 3) or (len(extra) > 3 and all(is_in(column, -1) for column in extra[2:])):
        label = class_label(extra[1])
    left, top, width, height = map(parse_number, columns[2:6])
    frame, track_id = parse_whole(columns[0], "frame"), parse_whole(columns[1], "id")
    return Row(frame, track_id, (left, top, width, height), None if label == "-1" else label, True, extra)


def _parse_mot_gt(columns: list[str]) -> Row:
    """Parse ``frame,id,left,top,width,height,flag,class,visibility`` (MOT16 on), or MOT15's ``...,flag,x,y,z``."""
    row = _parse_mot(columns)
    label = class_label(row.extra[1]) if len(row.extra) == 3 else None
    return row._replace(label=label, counts=not row.extra or not is_in(row.extra[0], 0))


def _parse_visdrone(columns: list[str]) -> Row:
    """Parse ``frame,id,left,top,width,height,score,category,truncation,occlusion``."""
    if len(columns) != 10:
        raise ValueError(
            "a line must have ten columns: frame,id,left,top,width,height,score,category,truncation,occlusion"
        )
    row = _parse_mot(columns)
    return row._replace(label=class_label(columns[7]), counts=not is_in(columns[6], 0))


def _parse_kitti(columns: list[str]) -> Row | None:
    """Parse ``frame id type truncated occluded alpha left top right bottom ...`` of KITTI's tracking benchmark."""
    if len(columns) not in (17, 18):
        raise ValueError("a line must have 17 columns, or 18 with a score: frame id type ... left top right bottom ...")
    if columns[2] == "DontCare":  # a region without a track
        return None
    box = _corners(*map(parse_number, columns[6:10]))
    return Row(parse_whole(columns[0], "frame"), parse_whole(columns[1], "id"), box, class_label(columns[2]))


def _corners(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
    return left, top, right - left, bottom - top


# Ultralytics: one file per frame


def _read_ultralytics(path: Path, rows: Rows) -> None:
    """Read the folder ``labels`` that ``yolo track ... save_txt=True`` writes: ``video_17.txt`` is frame 17."""
    if not path.is_dir():
        raise ValueError(f"tracks {str(path)!r} must be the folder of labels that yolo track wrote, got a file")
    names = [name for name in os.listdir(path) if name.endswith(".txt")]  # noqa: PTH208
    for frame, name in number_files(path, names)[0].items() if names else ():
        for number, line in read_lines(path / name):
            rows.add(path / name, number, line, lambda line=line, frame=frame: _parse_ultralytics(frame, line.split()))  # type: ignore[misc]


def _parse_ultralytics(frame: int, columns: list[str]) -> Row:
    """Parse ``class x y width height [confidence] [id]``, shares of the frame with the box's centre."""
    if len(columns) not in (5, 6, 7):
        raise ValueError("a line must have the columns class x y width height confidence id")
    x, y, width, height = map(parse_number, columns[1:5])
    if not all(-1 <= value <= 2 for value in (x, y, width, height)):
        raise ValueError("x, y, width and height must be shares of the frame from 0 to 1")
    if len(columns) == 5 or (len(columns) == 6 and "." in columns[5]):
        raise ValueError("a box must have an id in its last column, as yolo track writes it and yolo predict does not")
    box = x - width / 2, y - height / 2, width, height
    return Row(frame, parse_whole(columns[-1], "id"), box, class_label(columns[0]))


# CVAT: XML


def _read_cvat(path: Path, rows: Rows) -> None:
    """Read what CVAT exports as 'CVAT for video 1.1'. A document type, and with it any entity, is refused."""
    parser = expat.ParserCreate("utf-8")  # whatever it declares; other encodings are refused as not well-formed
    track: dict[str, str] = {}
    tasks: set[str] = set()

    def start(tag: str, values: dict[str, str]) -> None:
        if tag == "track":
            track.update(values)
            tasks.add(values.get("task_id", ""))
            if len(tasks) > 1:
                raise ValueError(f"tracks file {str(path)!r} must be of one task, got several; export each by itself")
        elif tag == "image":
            raise ValueError(
                f"tracks file {str(path)!r} must have tracks, got images, each with boxes of its own; "
                "export it from CVAT as 'CVAT for video 1.1'"
            )
        elif tag == "box" and track and values.get("outside") != "1":
            text = " ".join(f'{name}="{value}"' for name, value in values.items())
            rows.add(path, parser.CurrentLineNumber, text, lambda: _parse_cvat(track, values))
        elif track and tag in ("polygon", "polyline", "points", "ellipse", "cuboid", "skeleton", "mask"):
            rows.left_out[f"shapes that are no boxes ({tag})"] += values.get("outside") != "1"

    def end(tag: str) -> None:
        if tag == "track":
            track.clear()

    def refuse(*_: object) -> None:
        raise ValueError(f"tracks file {str(path)!r} must have no document type, which could hold entities; remove it")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: boxes of CVAT must be XML: {expat.ErrorString(error.code)}"
        ) from error


def _parse_cvat(track: dict[str, str], values: dict[str, str]) -> Row:
    try:
        frame, track_id = parse_whole(values["frame"], "frame"), parse_whole(track["id"], "id")
        box = _corners(*(parse_number(values[name]) for name in ("xtl", "ytl", "xbr", "ybr")))
    except KeyError as error:
        raise ValueError(f"a box must have the attribute {error}") from None
    if parse_number(values.get("rotation", "0")) != 0:
        raise ValueError("a box must be upright, without a rotation")
    return Row(frame, track_id, box, class_label(track.get("label", "")))


def _numbered(first: int, names: str) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names.split(", "), first)}


FORMATS: dict[str, BoxFormat] = {
    "mot": BoxFormat("a tracker's results, frame,id,left,top,width,height,confidence,class", _text(_parse_mot)),
    "mot-gt": BoxFormat(
        "ground truth of MOTChallenge and DanceTrack",
        _text(_parse_mot_gt),
        _numbered(
            1,
            "pedestrian, person on vehicle, car, bicycle, motorbike, non-motorised vehicle, static person, distractor, "
            "occluder, occluder on the ground, full occluder, reflection, crowd",
        ),
        ("1",),
    ),
    "visdrone": BoxFormat(
        "VisDrone-MOT",
        _text(_parse_visdrone),
        _numbered(
            0,
            "ignored region, pedestrian, people, bicycle, car, van, truck, tricycle, awning-tricycle, bus, motor, "
            "others",
        ),
        ("1", "2"),
    ),
    "kitti": BoxFormat(
        "labels of KITTI tracking", _text(_parse_kitti), {}, ("Pedestrian", "Person", "Person_sitting"), first_frame=0
    ),
    "ultralytics": BoxFormat("the folder of labels that yolo track wrote", _read_ultralytics, shares=True),
    "cvat": BoxFormat("'CVAT for video 1.1'", _read_cvat, first_frame=0),
}
"""Formats of boxes by name."""


def detect_format(path: Path | BoxRows) -> str | None:
    """Detect a format that is unmistakable from the first line, or from there being a folder; else None."""
    if path.is_dir():
        return "ultralytics"
    _, line = next(read_lines(path), (0, ""))
    if line.startswith("<"):
        return "cvat"
    columns = _split(line)
    return "kitti" if len(columns) in (17, 18) and not NUMBER.fullmatch(columns[2]) else None


def detect_mot_format(path: Path | BoxRows, rows: Sequence[Row]) -> str:
    """Detect whose columns follow the first six of all rows, and ask where two readings would keep other boxes."""
    extras = {row.extra for row in rows}
    flagged = all(extra and is_in(extra[0], 0, 1) for extra in extras)
    if flagged and all(len(extra) == 3 and is_in(extra[1], *range(1, 14)) and _is_share(extra[2]) for extra in extras):
        if any(is_in(extra[0], 0) for extra in extras) or all(is_in(extra[1], 1) for extra in extras):
            return "mot-gt"
        other = "mot-gt"
    elif flagged and all(len(extra) == 4 and all(is_in(column, -1) for column in extra[1:]) for extra in extras):
        if len({float(extra[0]) for extra in extras}) == 1:
            return "mot"
        other = "mot-gt"  # MOT15's flag, or a confidence
    elif flagged and all(
        len(extra) == 4 and is_in(extra[1], *range(12)) and is_in(extra[2], 0, 1) and is_in(extra[3], 0, 1, 2)
        for extra in extras
    ):
        if any(not is_in(extra[2], 0) or not is_in(extra[3], 0) for extra in extras):
            return "visdrone"
        if all(is_in(extra[0], 1) and is_in(extra[1], 1, 2) for extra in extras) or all(
            is_in(extra[1], 0) for extra in extras
        ):
            return "mot"  # the same in either reading, or places in the world that are all 0
        other = "visdrone"
    else:
        return "mot"
    raise ValueError(
        f"tracks file {str(path)!r} can be read as {FORMATS['mot'].description}, where every box is kept, or as "
        f"{FORMATS[other].description}, where only people that count are; pass --box-format mot or --box-format "
        f'{other} (BoxOptions(format="mot") or "{other}")'
    )


def _is_share(text: str) -> bool:
    return bool(NUMBER.fullmatch(text)) and 0 <= float(text) <= 1
