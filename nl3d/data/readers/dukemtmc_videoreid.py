"""DukeMTMC-VideoReID in its official layout."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from nl3d.data.dataset import ReIDDataset, check_count
from nl3d.data.frames.names import FrameNames, list_folders, list_frames, require_folder
from nl3d.data.labels import number_classes
from nl3d.data.tracklets import Tracklet

# 0001_C6_F0099_X30823.jpg, or without the underscores in the older release
_NAME = re.compile(rb"(?P<start>-?\d+_?C(?P<camera>\d+))_?F\d+_?X\d+\.\w+")


def read_dukemtmc_videoreid(root: str | Path, *, check_counts: bool = True) -> ReIDDataset:
    """Read DukeMTMC-VideoReID: 702 people to train on, 702 to test, 408 distractors, eight cameras.

    Query and gallery are read from two folders as they are. Distractors have pids that no query has. Numbers of frames
    may have gaps.

    Its authors withdrew the video; check the licence before you publish weights trained on it.

    Source: Wu et al. 2018, "Exploit the Unknown Gradually: One-Shot Video-Based Person Re-Identification by Stepwise
    Learning", and the data set's own description.

    Args:
        root: Folder with ``train``, ``query`` and ``gallery``, each of layout ``pid/tracklet/*.jpg``.
        check_counts: Whether to refuse other numbers of people or tracklets than the published ones.

    Raises:
        FileNotFoundError: If a folder is missing or has no images.
        ValueError: If images of one tracklet are named for different cameras, or a count is another.
    """
    root = require_folder(root, what="DukeMTMC-VideoReID folder")
    train, query, gallery = (_read_part(root / part) for part in ("train", "query", "gallery"))
    classes = number_classes(t.pid for t in train)
    if check_counts:
        people = {t.pid for t in query}
        check_count("DukeMTMC-VideoReID training people", len(classes), 702)
        check_count("DukeMTMC-VideoReID training tracklets", len(train), 2196)
        check_count("DukeMTMC-VideoReID query people", len(people), 702)
        check_count("DukeMTMC-VideoReID queries", len(query), 702)
        check_count("DukeMTMC-VideoReID distractors", len({t.pid for t in gallery} - people), 408)
        # not documented: whether the gallery repeats the queries; in both cases the two hold all test tracklets
        test = len({t.name.partition("/")[2] for t in (*query, *gallery)})
        check_count("DukeMTMC-VideoReID test tracklets", test, 2636)
    return ReIDDataset(
        name="DukeMTMC-VideoReID",
        train=[dataclasses.replace(t, pid=classes[t.pid]) for t in train],
        query=query,
        gallery=gallery,
        train_labels=tuple(classes),
    )


def _read_part(folder: Path) -> list[Tracklet]:
    require_folder(folder, what="DukeMTMC-VideoReID folder")
    tracklets = []
    for person in list_folders(folder, layout="pid/tracklet/*.jpg"):
        if not re.fullmatch(r"-?\d+", person):
            raise ValueError(f"folder {str(folder / person)!r} must be named by a pid")
        for name in list_folders(folder / person, layout="pid/tracklet/*.jpg"):
            frames = list_frames(folder / person / name)
            title = f"{folder.name}/{person}/{name}"
            tracklets.append(Tracklet(frames, pid=int(person), camid=_camera(frames), name=title))
    if not tracklets:
        raise FileNotFoundError(f"folder {str(folder)!r} must hold tracklets, pid/tracklet/*.jpg, got none")
    return tracklets


def _camera(frames: FrameNames) -> int:
    first, last = min(frames.names), max(frames.names)  # all names between start as both of these do
    match = _NAME.fullmatch(first)
    if match is None:
        raise ValueError(f"image {str(frames[0])!r} must be named like 0001_C6_F0099_X30823.jpg")
    other = _NAME.fullmatch(last)
    if other is None or other["start"] != match["start"]:
        raise ValueError(
            f"tracklet folder {frames.folder!r} must hold one person under one camera, "
            f"got {first.decode()!r} and {last.decode()!r}"
        )
    return int(match["camera"])
