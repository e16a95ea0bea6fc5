"""LS-VID in the layout of its authors."""

from __future__ import annotations

import os
from bisect import bisect_left
from pathlib import Path
from typing import Literal, NamedTuple

from nl3d.data.dataset import ReIDDataset, check_count, check_protocol
from nl3d.data.frames.names import FrameNames, is_image_name, require_folder, sort_names
from nl3d.data.labels import number_classes
from nl3d.data.readers.matfiles import read_query_rows
from nl3d.data.tracklets import Tracklet


def read_ls_vid(
    root: str | Path,
    *,
    protocol: Literal["official", "torchreid"] = "official",
    check_counts: bool = True,
) -> ReIDDataset:
    """Read LS-VID: 3,772 people under 15 cameras, about three million frames.

    ``"official"`` searches all test tracklets, queries included; the ranking leaves out the query's own camera.
    ``"torchreid"`` takes the queries out of the gallery, as torchreid does for MARS.

    Source: Li et al. 2019, "Global-Local Temporal Representations for Video Person Re-Identification"; the
    layout is that of its lists. Their lines are the start of the frames' paths and a pid.

    Args:
        root: Folder with ``list_sequence/list_seq_train.txt`` and ``list_seq_test.txt``, the folders of frames that
            they name, and ``test/data/info_test.mat``. Lists and table may also be under ``info``.
        protocol: ``"official"`` or ``"torchreid"``.
        check_counts: Whether to refuse other numbers than 842 training people, 2,730 test people and 15 cameras.

    Raises:
        FileNotFoundError: If a file, a folder, or the frames of a listed tracklet are missing.
        ValueError: If a list does not parse, frames belong to two tracklets, or a count is another.
    """
    check_protocol(protocol)
    root = require_folder(root, what="LS-VID folder")
    train = _read_list(root, "train")
    test = _read_list(root, "test")
    path = _first_file(root, "test/data/info_test.mat", "info/data/info_test.mat", "info_test.mat")
    query = read_query_rows(path, "query", len(test))
    frames = _Frames(root)
    tracklets = frames.tracklets(test)
    classes = number_classes(line.pid for line in train)
    trained = frames.tracklets(train, classes)
    if check_counts:
        check_count("LS-VID training people", len(classes), 842)
        check_count("LS-VID test people", len({line.pid for line in test}), 2730)
        check_count("LS-VID cameras", len({t.camid for t in (*trained, *tracklets)}), 15)
    held_out = set(query.tolist()) if protocol == "torchreid" else set()
    return ReIDDataset(
        name="LS-VID",
        protocol=protocol,
        train=trained,
        query=[tracklets[row] for row in query],
        gallery=[tracklet for row, tracklet in enumerate(tracklets) if row not in held_out],
        train_labels=tuple(classes),
    )


class _Line(NamedTuple):
    prefix: str
    pid: int


def _first_file(root: Path, *choices: str) -> Path:
    for choice in choices:
        if (root / choice).is_file():
            return root / choice
    raise FileNotFoundError(f"LS-VID file {str(root / choices[0])!r} does not exist, nor does {choices[1]!r}")


def _read_list(root: Path, part: str) -> list[_Line]:
    name = f"list_sequence/list_seq_{part}.txt"
    path = _first_file(root, name, f"info/{name}")
    lines = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"list {str(path)!r} must be text in UTF-8: {error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            prefix, pid = words
            lines.append(_Line(prefix, int(pid)))
        except ValueError:
            raise ValueError(f"{path}, line {number}: a line must be a path and a pid, got {line[:80]!r}") from None
    if not lines:
        raise ValueError(f"list {str(path)!r} must hold at least one tracklet, got none")
    return lines


class _Frames:
    """Frames by the start of their paths; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listed: dict[str, list[str]] = {}

    def tracklets(self, lines: list[_Line], classes: dict[int, int] | None = None) -> list[Tracklet]:
        """Turn lines of a list into tracklets. With ``classes`` (training), pids are the numbers of classes."""
        owner: dict[tuple[str, str], str] = {}
        tracklets = []
        for line in lines:
            folder, _, start = line.prefix.rpartition("/")
            names = self._beginning_with(folder, start)
            if not names:
                where = str(self.root / line.prefix)
                raise FileNotFoundError(f"LS-VID: tracklet {where!r} must have images, but no file begins so")
            for name in (names[0], names[-1]):  # frames of a tracklet are sorted side by side, so its ends are enough
                other = owner.setdefault((folder, name), line.prefix)
                if other != line.prefix:
                    raise ValueError(f"LS-VID: {name!r} must be of one tracklet, but {other!r} and {line.prefix!r} fit")
            cameras = {name.split("_")[2] if name.count("_") >= 3 else "" for name in names}
            camera = min(cameras)
            if len(cameras) > 1 or not camera.isdecimal():
                raise ValueError(
                    f"LS-VID: images of {line.prefix!r} must name one camera in their third field, as in "
                    f"0001_000123_07_1.jpg, got {names[0]!r} and {names[-1]!r}"
                )
            frames = FrameNames(self.root / folder, names)
            pid = line.pid if classes is None else classes[line.pid]
            tracklets.append(Tracklet(frames, pid, int(camera), line.prefix, person=str(line.pid)))
        return tracklets

    def _beginning_with(self, folder: str, start: str) -> list[str]:
        names = self.listed.get(folder)
        if names is None:
            path = require_folder(self.root / folder, what="LS-VID folder of frames")
            names = self.listed[folder] = sorted(filter(is_image_name, os.listdir(path)))  # noqa: PTH208
        found = []
        for name in names[bisect_left(names, start) :]:
            if not name.startswith(start):
                break
            found.append(name)
        if start[-1:].isdigit():  # tracklet 1 begins like tracklet 12
            found = [name for name in found if not name[len(start) : len(start) + 1].isdigit()] or found
        return sort_names(found)
