"""A data set of one's own as folders: ``pid/camid/tracklet/*.jpg``."""

from __future__ import annotations

from pathlib import Path

from nl3d.data.dataset import ReIDDataset, number_labels, own_numbers
from nl3d.data.frames.names import FrameNames, list_folders, list_frames, require_folder
from nl3d.data.tracklets import Tracklet

PARTS = ("train", "query", "gallery")


def read_tree(
    root: str | Path, *, junk_pids: tuple[int, ...] = (), distractor_pids: tuple[int, ...] = ()
) -> ReIDDataset:
    """Read ``root/<part>/<pid>/<camid>/<tracklet>/*.jpg``, where parts are ``train``, ``query`` and ``gallery``.

    Without such parts, ``root/<pid>/<camid>/<tracklet>/*.jpg`` is for testing: the first tracklet of each person under
    each camera is a query, and all tracklets are the gallery, queries included, whose own camera every ranking leaves
    out. That is how MARS does it.

    Names of people and cameras that are all whole numbers are kept, others are numbered from 0 in sorted order.

    Args:
        root: The folder.
        junk_pids: Pids of the gallery that are nobody's, such as -1.
        distractor_pids: Pids of the gallery that no query has, and that several people may share, such as 0.

    Raises:
        FileNotFoundError: If a folder is missing, or holds no tracklets or no images.
    """
    root = require_folder(root, what="data set folder")
    parts = [part for part in PARTS if (root / part).is_dir()]
    if not parts:
        rows = _read_part(root)
    elif {"query", "gallery"}.isdisjoint(parts) or {"query", "gallery"} <= set(parts):
        rows = [(part, *row[1:]) for part in parts for row in _read_part(root / part)]
    else:
        raise FileNotFoundError(f"{str(root)!r} must hold both query and gallery, got {', '.join(parts)}")
    cameras = own_numbers(camera for _, _, camera, _, _ in rows)
    people = own_numbers(person for part, person, *_ in rows if part != "train")
    trained = number_labels(person for part, person, *_ in rows if part == "train")
    found: dict[str, list[Tracklet]] = {part: [] for part in ("", *PARTS)}
    for part, person, camera, name, frames in rows:
        pid = trained[person] if part == "train" else people[person]
        title = "/".join(filter(None, (part, person, camera, name)))
        found[part].append(Tracklet(frames, pid=pid, camid=cameras[camera], name=title))
    nobody = {*junk_pids, *distractor_pids}
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


def _read_part(folder: Path) -> list[tuple[str, str, str, str, FrameNames]]:
    rows = [
        ("", person, camera, name, list_frames(folder / person / camera / name))
        for person in list_folders(folder)
        for camera in list_folders(folder / person)
        for name in list_folders(folder / person / camera)
    ]
    if not rows:
        raise FileNotFoundError(f"folder {str(folder)!r} must hold tracklets, pid/camid/tracklet/*.jpg, got none")
    return rows
