"""A data set of one's own as a CSV table of frames or of folders of frames."""

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

from nl3d.data.dataset import PARTS, ReIDDataset
from nl3d.data.frames.names import FrameNames, is_image_name, list_frames, require_frames, sort_names
from nl3d.data.labels import DISTRACTOR, JUNK, number_classes, number_labels, parse_label
from nl3d.data.readers.table import Table
from nl3d.data.tracklets import Tracklet
from nl3d.files import replacing

COLUMNS = ("path", "pid", "camid", "tracklet", "part", "frame")


CHECKED_AT_ONCE = 100_000
"""Frames whose names are held while their folders are looked at."""


@dataclass(slots=True)
class _Row:
    """A tracklet in the making; its paths lie in one string for each run of rows, since many small ones take more."""

    part: str
    pid: str
    camid: str
    line: int
    packed: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    is_folder: bool = False

    def add(self, paths: list[str], places: list[int]) -> None:
        """Take the rows read so far, and empty the lists for those of another tracklet."""
        if paths:
            self.packed += ("\0".join(paths),)
            self.places += tuple(places)
            paths.clear()
            places.clear()

    def take(self) -> list[str]:
        """Give the paths in the order of the rows, and keep them no longer."""
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

    A row is one frame, or a folder of frames. Rows of the same part and tracklet belong together, wherever they stand.
    Frames are in the order of ``frame``, a whole number, or of their names where there is no such column. ``part`` is
    ``train``, ``query`` or ``gallery``; whether the gallery repeats the queries is the table's choice.

    Labels of people and cameras are read by :func:`nl3d.data.labels.parse_label` and numbered by
    :func:`nl3d.data.labels.number_labels`: whole numbers keep their number, junk and distractors too. Training people
    are numbered from 0 without gaps.

    Args:
        path: The table. Paths in it are taken from its own folder, unless they are absolute.
        junk_pids: Pids of the gallery that are nobody's, such as -1.
        distractor_pids: Pids of the gallery that no query has, such as 0.
        check_files: Whether each frame must be there; costs a look at each folder.

    Raises:
        FileNotFoundError: If the table, a frame or a folder is missing.
        ValueError: If a column or a value is missing, or rows of one tracklet contradict each other.
    """
    rows = _read_rows(path, required=("path", "pid", "camid", "tracklet", "part"))
    trained = number_classes(row.pid for row, _, _ in rows if row.part == "train")
    reserved = {JUNK, DISTRACTOR, *junk_pids, *distractor_pids}
    people = number_labels((row.pid for row, _, _ in rows if row.part != "train"), reserved)
    cameras = number_labels(row.camid for row, _, _ in rows)
    found: dict[str, list[Tracklet]] = {part: [] for part in PARTS}
    for row, name, frames in rows:
        pid = trained[row.pid] if row.part == "train" else people[row.pid]
        found[row.part].append(
            Tracklet(frames, pid, cameras[row.camid], f"{row.part}/{name}", person=row.pid, camera=row.camid)
        )
    if check_files:
        _require_listed(rows)
    return ReIDDataset(
        name=Path(path).stem,
        protocol="parts",
        train=found["train"],
        query=found["query"],
        gallery=found["gallery"],
        train_labels=tuple(trained),
        junk_pids=junk_pids,
        distractor_pids=distractor_pids,
    )


def read_manifest_tracklets(path: str | Path, *, check_files: bool = True) -> list[Tracklet]:
    """Read tracklets from a CSV table, to embed them; of its columns only ``path`` must be there.

    Without a ``tracklet`` column each row is a tracklet of its own. ``pid`` and ``camid`` are kept where they are.

    Args:
        path: The table, as :func:`read_manifest` takes it.
        check_files: Whether each frame must be there; costs a look at each folder.

    Raises:
        FileNotFoundError: If the table, a frame or a folder is missing.
        ValueError: If a column or a value is missing, or rows of one tracklet contradict each other.
    """
    rows = _read_rows(path, required=("path",))
    people = number_labels(row.pid for row, _, _ in rows if row.pid)
    cameras = number_labels(row.camid for row, _, _ in rows if row.camid)
    names = [name for _, name, _ in rows]
    shared = len(set(names)) < len(names)  # the same tracklet in two parts
    tracklets = [
        Tracklet(
            frames,
            people.get(row.pid),
            cameras.get(row.camid),
            f"{row.part}/{name}" if shared else name,
            person=row.pid or None,
            camera=row.camid or None,
        )
        for row, name, frames in rows
    ]
    if check_files:
        _require_listed(rows)
    return tracklets


def write_manifest(path: str | Path, dataset: ReIDDataset) -> None:
    """Write a data set whose frames are image files as a table that :func:`read_manifest` reads, or nothing.

    Absolute paths stay, others are written relative to the table's folder. People and cameras are written as labels.

    Args:
        path: The table.
        dataset: The data set.

    Raises:
        TypeError: If a frame is no image file.
    """
    path = Path(path)
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for part in PARTS:
            for number, tracklet in enumerate(getattr(dataset, part)):
                title = tracklet.name.removeprefix(f"{part}/") or number
                for place, frame in enumerate(tracklet.frames):
                    if not isinstance(frame, str | PurePath):
                        raise TypeError(f"frames must be image files to be listed, got {type(frame).__name__}")
                    where = Path(frame if PurePath(frame).is_absolute() else os.path.relpath(frame, path.parent))
                    table.writerow((where.as_posix(), tracklet.person, tracklet.camera, title, part, place))


def require_manifest_frames(frames: Iterable[FrameNames]) -> None:
    """Refuse the first frame of a table's tracklets that is not there, with few looks at each folder.

    Raises:
        FileNotFoundError: If an image or its folder is missing.
    """
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


def _read_rows(path: str | Path, required: Sequence[str]) -> list[tuple[_Row, str, FrameNames]]:
    table = Table(path, what="manifest")
    table.require(required)
    folders: dict[str, str] = {}
    return [(row, name, _frames(table.path, row, folders)) for (_, name), row in _group(table, required).items()]


def _group(table: Table, required: Sequence[str]) -> dict[tuple[str, str], _Row]:
    rows: dict[tuple[str, str], _Row] = {}
    before: tuple[str, str] | None = None
    row = _Row("", "", "", 0)
    paths: list[str] = []
    places: list[int] = []
    for line, (place, pid, camid, name, part, frame) in table.rows(COLUMNS, filled=required):
        key = part, name or place
        if key != before:
            row.add(paths, places)
            if "part" in required and part not in PARTS:
                raise table.error(line, f"part must be train, query or gallery, got {part!r}")
            row = rows.setdefault(key, _Row(part, pid, camid, line))
            before = key
        if (row.pid, row.camid) != (pid, camid):
            raise table.error(
                line,
                f"tracklet {key[1]!r} must be of one person under one camera, got pid {pid!r} and camid {camid!r} "
                f"after {row.pid!r} and {row.camid!r} on line {row.line}",
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
    if shared not in folders:  # kept once, not with each frame, and the same for all tracklets of the folder
        folders[shared] = str(path.parent / shared)
    names = [os.fsencode(name[len(shared) + 1 :] if shared else name) for name in paths]
    return FrameNames(folders[shared], np.array(names, _width(max(map(len, names)))))


@lru_cache(maxsize=1024)
def _width(length: int) -> np.dtype[Any]:
    """Give one type for all names of a length, which numpy would else make anew for each tracklet."""
    return np.dtype((np.bytes_, length))


def _in_order(paths: Sequence[str], places: Iterable[int]) -> list[str]:
    return [path for _, path in sorted(zip(places, paths, strict=True))]
