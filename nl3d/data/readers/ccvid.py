"""CCVID, whose people change their clothes, in its official layout."""

from __future__ import annotations

import re
from pathlib import Path

from nl3d.data.dataset import PARTS, ReIDDataset, check_count
from nl3d.data.frames.names import list_frames, require_file, require_folder
from nl3d.data.labels import number_classes
from nl3d.data.tracklets import Tracklet

_PATH = re.compile(r"(session\d+)/\d+_(\d+)")
_OTHER_DAY = 12  # views of the third session are other cameras: their numbers follow those of the first two


def read_ccvid(root: str | Path, *, check_counts: bool = True) -> ReIDDataset:
    """Read CCVID: 226 people in two to five sets of clothes, 75 to train on and 151 to test.

    Each tracklet has its clothes. Score the rankings with ``clothes="any"``, ``"same"`` and ``"changed"`` of
    :func:`nl3d.evaluate`: the general, same-clothes and clothes-changing protocols. Query and gallery are two lists.
    Average precision is plain. A camera is a view of a session; those of the third session are other cameras.

    Source: Gu et al. 2022, "Clothes-Changing Person Re-identification with RGB Modality Only", arXiv:2204.06890, and
    the data set's own lists.

    Args:
        root: Folder with ``train.txt``, ``query.txt`` and ``gallery.txt``, and the folders of images that they name. A
            line is the folder of a tracklet such as ``session1/001_01``, a pid and the clothes.
        check_counts: Whether to refuse other numbers of people or tracklets than the published ones.

    Raises:
        FileNotFoundError: If a list or a tracklet's folder is missing or has no images.
        ValueError: If a line does not parse, or a count is another.
    """
    root = require_folder(root, what="CCVID folder")
    lists = {part: _read_list(root / f"{part}.txt") for part in PARTS}
    classes = number_classes(pid for _, pid, _ in lists["train"])
    tracklets = {
        part: [_tracklet(root, line, classes if part == "train" else None, part) for line in lines]
        for part, lines in lists.items()
    }
    if check_counts:
        people = {pid for part in ("query", "gallery") for _, pid, _ in lists[part]}
        check_count("CCVID training people", len(classes), 75)
        check_count("CCVID test people", len(people), 151)
        for part, official in (("train", 948), ("query", 834), ("gallery", 1074)):
            check_count(f"CCVID {part} tracklets", len(lists[part]), official)
    return ReIDDataset(
        name="CCVID",
        train=tracklets["train"],
        query=tracklets["query"],
        gallery=tracklets["gallery"],
        train_labels=tuple(classes),
    )


def _read_list(path: Path) -> list[tuple[str, int, str]]:
    """Read the lines of a list: folder, pid and clothes."""
    lines = []
    for number, line in enumerate(require_file(path, what="CCVID list").read_text().splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 3 or not _PATH.fullmatch(cells[0]) or not re.fullmatch(r"[0-9]+", cells[1]):
            raise ValueError(
                f"{path}, line {number}: a line must be a folder such as session1/001_01, a pid and the clothes, "
                f"got {line[:80]!r}"
            )
        lines.append((cells[0], int(cells[1]), cells[2]))
    return lines


def _tracklet(root: Path, line: tuple[str, int, str], classes: dict[int, int] | None, part: str) -> Tracklet:
    folder, pid, clothes = line
    match = _PATH.fullmatch(folder)
    assert match is not None
    camid = int(match[2]) + (_OTHER_DAY if match[1] == "session3" else 0)
    number = pid if classes is None else classes[pid]
    name = f"{part}/{folder}"
    return Tracklet(list_frames(root / folder), number, camid, name, person=str(pid), clothes=clothes)
