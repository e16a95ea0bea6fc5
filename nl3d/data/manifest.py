"""A data set of one's own as a CSV table of frames or of folders of frames."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from nl3d.data.dataset import ReIDDataset, number_labels, own_numbers
from nl3d.data.frames import FrameNames, is_image_name, list_frames, require_file, require_frames, sort_names
from nl3d.data.tracklets import Tracklet

PARTS = ("train", "query", "gallery")
COLUMNS = ("path", "pid", "camid", "tracklet", "part", "frame")


@dataclass
class _Row:
    """A tracklet in the making."""

    part: str
    pid: str
    camid: str
    line: int
    paths: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


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

    Names of people and cameras that are all whole numbers are kept, others are numbered from 0 in sorted order;
    training people are always numbered.

    Args:
        path: The table. Paths in it are taken from its own folder, unless they are absolute.
        junk_pids: Pids of the gallery that are nobody's, such as -1.
        distractor_pids: Pids of the gallery that no query has, such as 0.
        check_files: Whether each frame must be there; costs a look at each folder.

    Raises:
        FileNotFoundError: If the table, a frame or a folder is missing.
        ValueError: If a column or a value is missing, or rows of one tracklet contradict each other.
    """
    rows = _read_rows(path, required=("path", "pid", "camid", "tracklet", "part"), check_files=check_files)
    trained = number_labels(row.pid for row, _, _ in rows if row.part == "train")
    people = own_numbers(row.pid for row, _, _ in rows if row.part != "train")
    cameras = own_numbers(row.camid for row, _, _ in rows)
    found: dict[str, list[Tracklet]] = {part: [] for part in PARTS}
    for row, name, frames in rows:
        pid = trained[row.pid] if row.part == "train" else people[row.pid]
        found[row.part].append(Tracklet(frames, pid=pid, camid=cameras[row.camid], name=f"{row.part}/{name}"))
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
    rows = _read_rows(path, required=("path",), check_files=check_files)
    people = own_numbers(row.pid for row, _, _ in rows if row.pid)
    cameras = own_numbers(row.camid for row, _, _ in rows if row.camid)
    names = [name for _, name, _ in rows]
    shared = len(set(names)) < len(names)  # the same tracklet in two parts
    return [
        Tracklet(frames, people.get(row.pid), cameras.get(row.camid), f"{row.part}/{name}" if shared else name)
        for row, name, frames in rows
    ]


def write_manifest(path: str | Path, dataset: ReIDDataset) -> None:
    """Write a data set whose frames are image files as a table that :func:`read_manifest` reads, or nothing.

    Absolute paths stay, others are written relative to the table's folder. Training pids are written as the data
    set's own labels.

    Args:
        path: The table.
        dataset: The data set.

    Raises:
        TypeError: If a frame is no image file.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for name in PARTS:
                for number, tracklet in enumerate(getattr(dataset, name)):
                    assert tracklet.pid is not None
                    pid = dataset.train_labels[tracklet.pid] if name == "train" else tracklet.pid
                    title = tracklet.name.removeprefix(f"{name}/") or number
                    for place, frame in enumerate(tracklet.frames):
                        if not isinstance(frame, str | PurePath):
                            raise TypeError(f"frames must be image files to be listed, got {type(frame).__name__}")
                        where = frame if PurePath(frame).is_absolute() else os.path.relpath(frame, path.parent)
                        table.writerow((where, pid, tracklet.camid, title, name, place))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read_rows(path: str | Path, *, required: Sequence[str], check_files: bool) -> list[tuple[_Row, str, FrameNames]]:
    path = require_file(path, what="manifest")
    rows = _group(path, required)
    if not rows:
        raise ValueError(f"manifest {str(path)!r} must hold at least one row below its header, got none")
    found = [(row, name, _frames(path, row)) for (_, name), row in rows.items()]
    if check_files:
        listed: dict[str, list[str]] = {}
        for row, _, _ in found:
            for name in row.paths if row.paths[0] and is_image_name(os.path.basename(row.paths[0])) else ():  # noqa: PTH119
                folder, _, image = name.replace(os.sep, "/").rpartition("/")
                listed.setdefault(folder, []).append(image)
        require_frames(((path.parent / folder, names) for folder, names in listed.items()), what="manifest")
    return found


def _group(path: Path, required: Sequence[str]) -> dict[tuple[str, str], _Row]:
    rows: dict[tuple[str, str], _Row] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        header = table.fieldnames or ()
        missing = [column for column in required if column not in header]
        if missing:
            raise ValueError(
                f"manifest {str(path)!r} must have the columns {', '.join(required)} in its first line, "
                f"got {', '.join(map(repr, header)) or 'none'}"
            )
        for line in table:
            where = f"{path}, line {table.line_num}"
            empty = [column for column in required if not line[column]]
            if empty:
                raise ValueError(f"{where}: {empty[0]} must not be empty")
            name = line.get("tracklet") or line["path"]
            part, pid, camid = (line.get(column) or "" for column in ("part", "pid", "camid"))
            if "part" in required and part not in PARTS:
                raise ValueError(f"{where}: part must be train, query or gallery, got {part!r}")
            row = rows.setdefault((part, name), _Row(part, pid, camid, table.line_num))
            if (row.pid, row.camid) != (pid, camid):
                raise ValueError(
                    f"{where}: tracklet {name!r} must be of one person under one camera, "
                    f"got pid {pid!r} and camid {camid!r} after {row.pid!r} and {row.camid!r} on line {row.line}"
                )
            row.paths.append(line["path"])
            if "frame" in header:
                try:
                    row.places.append(int(line["frame"]))
                except (TypeError, ValueError):
                    raise ValueError(f"{where}: frame must be a whole number, got {line['frame']!r}") from None
    return rows


def _frames(path: Path, row: _Row) -> FrameNames:
    images = [is_image_name(os.path.basename(name)) for name in row.paths]  # noqa: PTH119 - a path each is slow
    if not any(images) and len(images) == 1:
        return list_frames(path.parent / row.paths[0])
    if not all(images):
        raise ValueError(
            f"{path}, line {row.line}: a tracklet must be one folder or images (.jpg, .png or .webp), "
            f"got {row.paths[images.index(False)]!r} among {len(images)} rows"
        )
    if row.places:
        if len(set(row.places)) != len(row.places):
            raise ValueError(f"{path}, line {row.line}: frame numbers of a tracklet must differ")
        return FrameNames(path.parent, _in_order(row.paths, row.places))
    return FrameNames(path.parent, sort_names(row.paths))


def _in_order(paths: Sequence[str], places: Iterable[int]) -> list[str]:
    return [path for _, path in sorted(zip(places, paths, strict=True))]
