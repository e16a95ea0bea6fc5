"""Folders of tracklets: ``pid/camid/tracklet/*.jpg`` with labels, ``tracklet/*.jpg`` without."""

from __future__ import annotations

from pathlib import Path

from nl3d.data.dataset import PARTS, LabelledRow, ReIDDataset, make_dataset
from nl3d.data.frames.names import is_utf8, list_folders, list_frames, require_folder
from nl3d.data.labels import parse_label
from nl3d.data.tracklets import Tracklet

LAYOUT = "pid/camid/tracklet/*.jpg"


def read_tree(
    root: str | Path, *, junk_pids: tuple[int, ...] = (), distractor_pids: tuple[int, ...] = ()
) -> ReIDDataset:
    """Read ``root/<part>/<pid>/<camid>/<tracklet>/*.jpg``, where parts are ``train``, ``query`` and ``gallery``.

    Without such parts, ``root/<pid>/<camid>/<tracklet>/*.jpg`` is for testing, as in MARS: the first tracklet of each
    person under each camera is a query, and all tracklets are the gallery, queries included. Every ranking leaves out
    the query's own camera.

    Labels of people and cameras are read by :func:`nl3d.data.labels.parse_label` and numbered by
    :func:`nl3d.data.labels.number_labels`: whole numbers keep their number, junk and distractors too. Training people
    are numbered from 0 without gaps.

    Args:
        root: The folder.
        junk_pids: Pids that every ranking leaves out, such as -1.
        distractor_pids: Pids that are wrong answers to every query, such as 0.

    Raises:
        FileNotFoundError: If a folder is missing, or holds no tracklets or no images.
        ValueError: If the name of a folder is no label, two folders side by side have the same label, or an image is
            outside the folder of a tracklet.
    """
    root = require_folder(root, what="data set folder")
    parts = [part for part in PARTS if (root / part).is_dir()]
    if not parts:
        rows = _read_part(root, "")
    elif {"query", "gallery"}.isdisjoint(parts) or {"query", "gallery"} <= set(parts):
        rows = [row for part in parts for row in _read_part(root, part)]
    else:
        raise FileNotFoundError(f"{str(root)!r} must hold both query and gallery, got {', '.join(parts)}")
    return make_dataset(rows, name=root.resolve().name, junk_pids=junk_pids, distractor_pids=distractor_pids)


def read_tracklet_folders(path: str | Path) -> list[Tracklet]:
    """Read tracklets without labels from ``path/<tracklet>/<frame>.jpg``, to embed them.

    Tracklets and frames are in natural order of their names. Hidden files and files of other types are ignored.
    """
    path = require_folder(path, what="folder")
    if not is_utf8(str(path)):
        raise ValueError(f"folder {str(path)!r} must have a path in UTF-8, which outputs can name; rename it")
    names = list_folders(path, layout="tracklet/*.jpg", remedy="give tracks if these are the frames of a video")
    if not names:
        raise ValueError(f"folder {str(path)!r} must hold one folder per tracklet, tracklet/*.jpg, got none")
    return [Tracklet(list_frames(path / name), name=name) for name in names]


def _read_part(root: Path, part: str) -> list[LabelledRow]:
    folder = root / part
    rows = []
    for person, first in _labelled_folders(folder):
        for camera, second in _labelled_folders(folder / first):
            for name in list_folders(folder / first / second, layout=LAYOUT):
                title = "/".join(filter(None, (part, first, second, name)))
                rows.append(LabelledRow(part, person, camera, title, list_frames(root / title)))
    if not rows:
        raise FileNotFoundError(f"folder {str(folder)!r} must hold tracklets, {LAYOUT}, got none")
    return rows


def _labelled_folders(folder: Path) -> list[tuple[str, str]]:
    """Labels and names of the folders in a folder."""
    names: dict[str, str] = {}
    for name in list_folders(folder, layout=LAYOUT):
        try:
            label = parse_label(name)
        except ValueError as error:
            raise ValueError(f"folder {str(folder / name)!r} must be named by a label: {error}") from None
        if label in names:
            raise ValueError(
                f"folders {names[label]!r} and {name!r} of {str(folder)!r} have one label; rename or merge them"
            )
        names[label] = name
    return [*names.items()]
