"""MARS in its official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nl3d.data.dataset import ReIDDataset, check_count, check_protocol
from nl3d.data.frames.names import FrameNames, require_file, require_folder, require_frames
from nl3d.data.labels import DISTRACTOR, JUNK, number_classes
from nl3d.data.readers.matfiles import read_mat, read_query_rows
from nl3d.data.tracklets import Tracklet

Table = NDArray[np.int64]


def read_mars(
    root: str | Path,
    *,
    protocol: Literal["official", "torchreid"] = "official",
    check_counts: bool = True,
    check_files: bool = True,
    test_only: bool = False,
) -> ReIDDataset:
    """Read MARS: 1,259 people and six cameras, cut out by a detector and a tracker.

    Two conventions are in use, and results differ between them. ``"official"`` searches all 12,180 test tracklets, the
    queries too: junk (pid -1) and the query's own camera are left out of a ranking, distractors (pid 0) stay as wrong
    answers, average precision is trapezoidal, and all 1,980 queries count. ``"torchreid"`` takes junk and queries out
    of the gallery, which leaves 140 queries without any match, and uses plain average precision.

    The lists name a million images. They are checked by one read of each folder.

    Source: Zheng et al. 2016, "MARS: A Video Benchmark for Large-Scale Person Re-Identification"; Liao et al. 2018,
    arXiv:1807.05073, Sec. 4.1 and 4.2. Their 1,261 people count junk and distractors as one each.

    Args:
        root: Folder with ``bbox_train``, ``bbox_test`` and ``info`` (the name lists and ``.mat`` files).
        protocol: ``"official"`` or ``"torchreid"``.
        check_counts: Whether to refuse other numbers of tracklets, people, frames or queries than the published ones.
        check_files: Whether each listed image must be there.
        test_only: Whether to read the test half alone; lists and images of the training half are then not needed.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If tables and name lists contradict each other, or a count is another.
    """
    check_protocol(protocol)
    root = require_folder(root, what="MARS folder")
    train = None if test_only else _Part(root, "train", check_counts=check_counts)
    test = _Part(root, "test", check_counts=check_counts)
    query = _read_query(root / "info" / "query_IDX.mat", test.table, check_counts)
    for part in (train, test):
        if part is not None:
            part.check_names()
            if check_files:
                part.check_files()
    if train is not None and np.any(train.table[:, 2] <= 0):
        raise ValueError(f"{str(train.tracks)!r}: train pids must be above 0, got {train.table[:, 2].min()}")
    classes = {} if train is None else number_classes(train.table[:, 2].tolist())
    tracklets = test.tracklets()
    kept = np.ones(len(tracklets), dtype=bool)
    if protocol == "torchreid":
        kept[query] = False
        kept &= test.table[:, 2] != JUNK
    return ReIDDataset(
        name="MARS",
        protocol=protocol,
        train=() if train is None else train.tracklets(classes),
        query=[tracklets[row] for row in query],
        gallery=[tracklets[row] for row in np.flatnonzero(kept)],
        train_labels=tuple(classes),
        junk_pids=(JUNK,),
        distractor_pids=(DISTRACTOR,),
        ap="trapezoid" if protocol == "official" else "interpolated",
    )


class _Part:
    """The training or test half: a list of image names, and a table of the lines that make a tracklet."""

    official = {  # tracklets, frames, people  # noqa: RUF012 - a constant
        "train": (8298, 509914, 625),
        "test": (12180, 681089, 634),
    }

    def __init__(self, root: Path, part: str, *, check_counts: bool) -> None:
        info = require_folder(root / "info", what="MARS folder of name lists and .mat files")
        self.part = part
        self.folder = require_folder(root / f"bbox_{part}", what="MARS folder of images")
        self.names_file = require_file(info / f"{part}_name.txt", what="MARS name list")
        self.tracks = require_file(info / f"tracks_{part}_info.mat", what="MARS table of tracklets")
        self.table = read_mat(self.tracks, f"track_{part}_info")  # first, last, pid, camera; lines count from 1
        if self.table.shape[1] != 4 or not len(self.table):
            raise ValueError(
                f"{str(self.tracks)!r}: 'track_{part}_info' must be (tracklets, 4) with columns first, last, pid and "
                f"camera, got {self.table.shape}"
            )
        self.names = np.array(self.names_file.read_bytes().split() or [b""])
        self.first, self.last = self.table[:, 0], self.table[:, 1]
        wrong = (self.first < 1) | (self.last < self.first) | (self.last > len(self.names))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{str(self.tracks)!r}: row {row + 1} must name lines from 1 to {len(self.names)} of "
                f"{self.names_file.name}, got {self.first[row]} to {self.last[row]}"
            )
        self.lengths = self.last - self.first + 1
        if check_counts:
            people = len(np.unique(self.table[self.table[:, 2] > 0, 2]))
            found = len(self.table), int(self.lengths.sum()), people
            for what, number, official in zip(
                ("tracklets", "frames", "people"), found, self.official[part], strict=True
            ):
                check_count(f"MARS {part} {what}", number, official)

    def check_names(self) -> None:
        """Refuse a tracklet with images of another person or camera in the list."""
        starts = np.cumsum(self.lengths) - self.lengths
        row = np.repeat(np.arange(len(self.table)), self.lengths)
        line = np.arange(len(row)) - starts[row] + self.first[row] - 1
        listed = self.names[line]
        pids = np.array([b"00-1" if pid == JUNK else b"%04d" % pid for pid in self.table[:, 2].tolist()])
        cameras = np.array([b"%d" % camera for camera in self.table[:, 3].tolist()])
        wrong = listed.astype("S4") != pids[row]
        # junk is left out of every ranking, so its cameras do not matter
        wrong |= (_character(listed, 5) != cameras[row]) & (self.table[row, 2] != JUNK)
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"{str(self.names_file)!r}, line {line[at] + 1}: row {row[at] + 1} of {self.tracks.name} wants "
                f"an image of pid {self.table[row[at], 2]} under camera {self.table[row[at], 3]}, "
                f"got {listed[at].decode(errors='replace')!r}"
            )

    def check_files(self) -> None:
        """Refuse a listed image that does not exist."""
        used = np.zeros(len(self.names), dtype=bool)
        for first, last in zip(self.first, self.last, strict=True):
            used[first - 1 : last] = True
        names = np.sort(self.names[used])
        folders, starts = np.unique(names.astype("S4"), return_index=True)
        groups = np.split(names, starts[1:])
        require_frames(
            (
                (self.folder / folder.decode(), map(bytes.decode, group.tolist()))
                for folder, group in zip(folders.tolist(), groups, strict=True)
            ),
            what=f"MARS {self.names_file.name}",
        )

    def tracklets(self, classes: dict[int, int] | None = None) -> list[Tracklet]:
        """Cut the name list into tracklets. With ``classes`` (training), pids are the numbers of classes."""
        found = []
        for row, (first, last, pid, camera) in enumerate(self.table.tolist(), 1):
            names = self.names[first - 1 : last]
            if np.any(names[1:] < names[:-1]):
                names = np.sort(names)
            frames = FrameNames(self.folder / names[0][:4].decode(), names)
            number = pid if classes is None else classes[pid]
            found.append(Tracklet(frames, number, camera, f"{self.part}-{row:05d}", person=str(pid)))
        return found


def _read_query(path: Path, test: Table, check_counts: bool) -> Table:
    query = read_query_rows(require_file(path, what="MARS table of queries"), "query_IDX", len(test))
    not_people = query[test[query, 2] <= 0]
    if len(not_people):
        raise ValueError(
            f"{str(path)!r}: queries must be people, but row {not_people[0] + 1} has pid {test[not_people[0], 2]}"
        )
    if check_counts:
        check_count("MARS queries", len(query), 1980)
        check_count("MARS query people", len(np.unique(test[query, 2])), 626)
        pairs = len(np.unique(test[query][:, 2:], axis=0))
        check_count("MARS queries of different person or camera", pairs, 1980)
    return query


def _character(names: NDArray[np.bytes_], place: int) -> NDArray[np.bytes_]:
    width = names.dtype.itemsize
    if width <= place:
        return np.full(len(names), b"")
    return np.ascontiguousarray(names).view("S1").reshape(len(names), width)[:, place]
