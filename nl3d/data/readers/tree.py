"""A data set of one's own as folders: ``pid/camid/tracklet/*.jpg``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from nl3d.data.dataset import ReIDDataset
from nl3d.data.frames.names import FrameNames, list_folders, list_frames, require_folder
from nl3d.data.labels import DISTRACTOR, JUNK, number_classes, number_labels, parse_label
from nl3d.data.tracklets import Tracklet

PARTS = ("train", "query", "gallery")


def read_tree(
    root: str | Path, *, junk_pids: tuple[int, ...] = (), distractor_pids: tuple[int, ...] = ()
) -> ReIDDataset:
    """Read ``root/<part>/<pid>/<camid>/<tracklet>/*.jpg``, where parts are ``train``, ``query`` and ``gallery``.

    Without such parts, ``root/<pid>/<camid>/<tracklet>/*.jpg`` is for testing: the first tracklet of each person under
    each camera is a query, and all tracklets are the gallery, queries included, whose own camera every ranking leaves
    out. That is how MARS does it.

    Labels of people and cameras are read by :func:`nl3d.data.labels.parse_label` and numbered by
    :func:`nl3d.data.labels.number_labels`: whole numbers keep their number, junk and distractors too. Training people
    are numbered from 0 without gaps.

    Args:
        root: The folder.
        junk_pids: Pids of the gallery that are nobody's, such as -1.
        distractor_pids: Pids of the gallery that no query has, and that several people may share, such as 0.

    Raises:
        FileNotFoundError: If a folder is missing, or holds no tracklets or no images.
        ValueError: If the name of a folder is no label, or two folders side by side have the same label.
    """
    root = require_folder(root, what="data set folder")
    parts = [part for part in PARTS if (root / part).is_dir()]
    if not parts:
        rows = _read_part(root, "")
    elif {"query", "gallery"}.isdisjoint(parts) or {"query", "gallery"} <= set(parts):
        rows = [row for part in parts for row in _read_part(root, part)]
    else:
        raise FileNotFoundError(f"{str(root)!r} must hold both query and gallery, got {', '.join(parts)}")
    nobody = {*junk_pids, *distractor_pids}
    cameras = number_labels(row.camera for row in rows)
    people = number_labels((row.person for row in rows if row.part != "train"), {JUNK, DISTRACTOR, *nobody})
    trained = number_classes(row.person for row in rows if row.part == "train")
    found: dict[str, list[Tracklet]] = {part: [] for part in ("", *PARTS)}
    for row in rows:
        pid = (trained if row.part == "train" else people)[row.person]
        found[row.part].append(
            Tracklet(row.frames, pid, cameras[row.camera], row.name, person=row.person, camera=row.camera)
        )
    if not parts:
        firsts = {(t.pid, t.camid): t for t in reversed(found[""]) if t.pid not in nobody}
        found["query"] = [t for t in found[""] if firsts.get((t.pid, t.camid)) is t]
        found["gallery"] = found[""]
    return ReIDDataset(
        name=root.resolve().name,
        protocol="parts" if parts else "one query of each person and camera, queries in the gallery",
        train=found["train"],
        query=found["query"],
        gallery=found["gallery"],
        train_labels=tuple(trained),
        junk_pids=junk_pids,
        distractor_pids=distractor_pids,
    )


class _Row(NamedTuple):
    part: str
    person: str
    camera: str
    name: str
    frames: FrameNames


def _read_part(root: Path, part: str) -> list[_Row]:
    folder = root / part
    rows = [
        _Row(
            part,
            person,
            camera,
            "/".join(filter(None, (part, *places, name))),
            list_frames(folder / Path(*places, name)),
        )
        for person, first in _labelled_folders(folder)
        for camera, second in _labelled_folders(folder / first)
        for places in [(first, second)]
        for name in list_folders(folder / first / second)
    ]
    if not rows:
        raise FileNotFoundError(f"folder {str(folder)!r} must hold tracklets, pid/camid/tracklet/*.jpg, got none")
    return rows


def _labelled_folders(folder: Path) -> list[tuple[str, str]]:
    """Labels and names of the folders in a folder."""
    names: dict[str, str] = {}
    for name in list_folders(folder):
        try:
            label = parse_label(name)
        except ValueError as error:
            raise ValueError(f"folder {str(folder / name)!r} must be named by a label: {error}") from None
        if names.setdefault(label, name) != name:
            raise ValueError(
                f"folders {names[label]!r} and {name!r} of {str(folder)!r} have one label; rename or merge them"
            )
    return [*names.items()]
