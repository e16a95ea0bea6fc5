"""CSV tables of frames or of folders of frames."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from nl3d.data.dataset import PARTS, LabelledRow, ReIDDataset, make_dataset
from nl3d.data.frames.names import FrameNames, is_image_name, list_frames, require_frames, sort_names
from nl3d.data.labels import number_labels, parse_label
from nl3d.data.readers.columns import open_table
from nl3d.data.readers.table import Table
from nl3d.data.tracklets import Tracklet
from nl3d.files import replacing

COLUMNS = ("path", "pid", "camid", "tracklet", "part", "frame", "clothes")
_LABELS = ("pid", "camid", "clothes")


CHECKED_AT_ONCE = 100_000
"""Names of frames that are collected before their folders are read."""


@dataclass(slots=True)
class _Row:
    """A tracklet being read. Paths of successive rows are joined to one string, to save memory."""

    part: str
    pid: str
    camid: str
    line: int
    packed: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    is_folder: bool = False
    clothes: str = ""

    def add(self, paths: list[str], places: list[int]) -> None:
        """Add the rows read so far and clear the lists for the next tracklet."""
        if paths:
            self.packed += ("\0".join(paths),)
            self.places += tuple(places)
            paths.clear()
            places.clear()

    def take(self) -> list[str]:
        """Return the paths in the order of the rows and drop them here."""
        paths = [path for run in self.packed for path in run.split("\0")]
        self.packed = ()
        return paths


def read_manifest(
    path: str | Path,
    *,
    junk_pids: tuple[int, ...] = (),
    distractor_pids: tuple[int, ...] = (),
    check_files: bool = True,
) -> ReIDDataset:
    """Read a data set from a CSV table with columns ``path,pid,camid,tracklet,part`` and, if needed, ``frame``.

    A column ``clothes`` may say what the person wears.

    A row is one frame, or a folder of frames. Rows of the same part and tracklet belong together, in any order. Frames
    are in the order of ``frame``, a whole number, or else in natural order of their names. ``part`` is ``train``,
    ``query`` or ``gallery``; the table may list queries in the gallery too.

    Labels of people and cameras are read by :func:`nl3d.data.labels.parse_label` and numbered by
    :func:`nl3d.data.labels.number_labels`: whole numbers keep their number, junk and distractors too. Training people
    are numbered from 0 without gaps.

    Args:
        path: The table. Paths in it are relative to its folder, unless they are absolute.
        junk_pids: Pids that every ranking leaves out, such as -1.
        distractor_pids: Pids that are wrong answers to every query, such as 0.
        check_files: Whether each frame must exist; costs one read of each folder.

    Raises:
        FileNotFoundError: If the table, a frame or a folder is missing.
        ValueError: If a column or a value is missing, or rows of one tracklet contradict each other.
    """
    rows = _read_rows(path, required=("path", "pid", "camid", "tracklet", "part"))
    if check_files:
        _require_listed(rows)
    labelled = [
        LabelledRow(row.part, row.pid, row.camid, f"{row.part}/{name}", frames, row.clothes or None)
        for row, name, frames in rows
    ]
    return make_dataset(labelled, name=Path(path).stem, junk_pids=junk_pids, distractor_pids=distractor_pids)


def read_manifest_tracklets(
    source: Any, *, check_files: bool = True, prefix_parts: bool | None = None
) -> list[Tracklet]:
    """Read tracklets from a table, to embed them. Only the column ``path`` is required.

    Without a ``tracklet`` column, each row is a tracklet. Labels may be missing.

    Args:
        source: The table: a CSV file, see :func:`read_manifest`, a Parquet file or a data frame with the same columns.
            Paths in a data frame are relative to the working folder.
        check_files: Whether each frame must exist; costs one read of each folder.
        prefix_parts: Whether names carry their part; only if two parts share a name, if left out.

    Raises:
        FileNotFoundError: If the table, a frame or a folder is missing.
        ValueError: If a column or a value is missing, or rows of one tracklet contradict each other.
    """
    rows = _read_rows(source, required=("path",))
    people = number_labels(row.pid for row, _, _ in rows if row.pid)
    cameras = number_labels(row.camid for row, _, _ in rows if row.camid)
    names = [name for _, name, _ in rows]
    if prefix_parts is None:
        prefix_parts = len(set(names)) < len(names)  # the same tracklet in two parts
    tracklets = [
        Tracklet(
            frames,
            people.get(row.pid),
            cameras.get(row.camid),
            f"{row.part}/{name}" if prefix_parts else name,
            person=row.pid or None,
            camera=row.camid or None,
            clothes=row.clothes or None,
        )
        for row, name, frames in rows
    ]
    if check_files:
        _require_listed(rows)
    return tracklets


def write_manifest(path: str | Path, dataset: ReIDDataset) -> None:
    """Write a data set of image files as a table that :func:`read_manifest` reads.

    Absolute paths stay; others are written relative to the folder of the table. People and cameras are labels.

    Args:
        path: The table.
        dataset: The data set.

    Raises:
        TypeError: If a frame is no image file.
    """
    path = Path(path)
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        has_clothes = any(tracklet.clothes is not None for part in PARTS for tracklet in getattr(dataset, part))
        table.writerow(COLUMNS if has_clothes else COLUMNS[:-1])
        for part in PARTS:
            for number, tracklet in enumerate(getattr(dataset, part)):
                title = tracklet.name.removeprefix(f"{part}/") or number
                for place, frame in enumerate(tracklet.frames):
                    if not isinstance(frame, str | PurePath):
                        raise TypeError(f"frames must be image files to be listed, got {type(frame).__name__}")
                    where = Path(frame if PurePath(frame).is_absolute() else os.path.relpath(frame, path.parent))
                    row = (where.as_posix(), tracklet.person, tracklet.camera, title, part, place)
                    table.writerow((*row, tracklet.clothes or "") if has_clothes else row)


def require_manifest_frames(frames: Iterable[FrameNames]) -> None:
    """Refuse the first frame of a table that does not exist, with few reads of each folder."""
    listed: dict[str, list[str]] = {}
    waiting = 0
    for names in frames:
        for name in names.names.tolist():
            folder, _, image = os.fsdecode(name).replace(os.sep, "/").rpartition("/")
            listed.setdefault(os.path.join(names.folder, folder) if folder else names.folder, []).append(image)  # noqa: PTH118
        waiting += len(names)
        if waiting >= CHECKED_AT_ONCE:
            require_frames(listed.items(), what="manifest")
            listed, waiting = {}, 0
    require_frames(listed.items(), what="manifest")


def _require_listed(rows: Iterable[tuple[_Row, str, FrameNames]]) -> None:
    require_manifest_frames(frames for row, _, frames in rows if not row.is_folder)


def _read_rows(source: Any, required: Sequence[str]) -> list[tuple[_Row, str, FrameNames]]:
    table = open_table(source, what="manifest")
    table.require(required)
    folders: dict[str, str] = {}
    return [(row, name, _frames(table.path, row, folders)) for (_, name), row in _group(table, required).items()]


def _group(table: Table, required: Sequence[str]) -> dict[tuple[str, str], _Row]:
    rows: dict[tuple[str, str], _Row] = {}
    before: tuple[str, str] | None = None
    row = _Row("", "", "", 0)
    paths: list[str] = []
    places: list[int] = []
    for line, (place, pid, camid, name, part, frame, clothes) in table.rows(COLUMNS, filled=required, labels=_LABELS):
        key = part, name or place
        if key != before:
            row.add(paths, places)
            if "part" in required and part not in PARTS:
                raise table.error(line, f"part must be train, query or gallery, got {part!r}")
            row = rows.setdefault(key, _Row(part, pid, camid, line, clothes=clothes))
            before = key
        if (row.pid, row.camid) != (pid, camid):
            raise table.error(
                line,
                f"tracklet {key[1]!r} must be of one person under one camera, got pid {pid!r} and camid {camid!r} "
                f"after {row.pid!r} and {row.camid!r} on line {row.line}",
            )
        if row.clothes != clothes:
            raise table.error(
                line,
                f"tracklet {key[1]!r} must be in the same clothes, got {clothes!r} after {row.clothes!r} "
                f"on line {row.line}",
            )
        paths.append(place)
        if "frame" in table:
            try:
                places.append(int(parse_label(frame)))
            except ValueError:
                raise table.error(line, f"frame must be a whole number, got {frame!r}") from None
    row.add(paths, places)
    return rows


def _frames(path: Path, row: _Row, folders: dict[str, str]) -> FrameNames:
    paths = row.take()
    images = [is_image_name(name.replace(os.sep, "/").rpartition("/")[2]) for name in paths]
    if not any(images) and len(images) == 1:
        row.is_folder = True
        return list_frames(path.parent / paths[0])
    if not all(images):
        raise ValueError(
            f"{path}, line {row.line}: a tracklet must be one folder or images (.jpg, .png or .webp), "
            f"got {paths[images.index(False)]!r} among {len(images)} rows"
        )
    if row.places:
        if len(set(row.places)) != len(row.places):
            raise ValueError(f"{path}, line {row.line}: frame numbers of a tracklet must differ")
        paths = _in_order(paths, row.places)
    elif len(paths) > 1:
        paths = sort_names(paths)
        twice = next((one for one, other in pairwise(paths) if one == other), None)
        if twice is not None:
            raise ValueError(f"{path}, line {row.line}: a tracklet must list each image once, got {twice!r} twice")
    parents = {name.rpartition("/")[0] for name in paths}
    shared = parents.pop() if len(parents) == 1 else ""
    if shared not in folders:  # all tracklets of a folder share one string
        folders[shared] = str(path.parent / shared)
    names = [os.fsencode(name[len(shared) + 1 :] if shared else name) for name in paths]
    return FrameNames(folders[shared], np.array(names, _width(max(map(len, names)))))


@lru_cache(maxsize=1024)
def _width(length: int) -> np.dtype[Any]:
    """Return one type for all names of a length, so that tracklets share it."""
    return np.dtype((np.bytes_, length))


def _in_order(paths: Sequence[str], places: Iterable[int]) -> list[str]:
    return [path for _, path in sorted(zip(places, paths, strict=True))]
