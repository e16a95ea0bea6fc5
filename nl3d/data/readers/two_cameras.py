"""Shared by iLIDS-VID and PRID2011: one tracklet of each person under each of two cameras, and random splits."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from nl3d.data.dataset import ReIDDataset
from nl3d.data.frames.names import list_frames, require_folder
from nl3d.data.readers.splits import Split
from nl3d.data.tracklets import Tracklet


def list_people(folder: str | Path, *, what: str) -> list[str]:
    """Return the names of the folders ``person...`` in sorted order, by which split tables count."""
    require_folder(folder, what=what)
    names = [name for name in os.listdir(folder) if re.fullmatch(r"person_?\d+", name)]  # noqa: PTH208
    if not names:
        raise FileNotFoundError(f"{what} {str(folder)!r} must hold folders of people, person001 and on, got none")
    return sorted(names)


def person_number(name: str) -> int:
    """Return the pid, which is the number in the name of a person's folder.

    Example:
        >>> person_number("person017"), person_number("person_0017")
        (17, 17)
    """
    match = re.fullmatch(r"person_?(\d+)", name)
    if match is None:
        raise ValueError(f"people must be named like 'person001', got {name!r}; check the split file")
    return int(match[1])


def two_camera_dataset(
    name: str, cameras: Sequence[Path], splits: Sequence[Split], split: int, *, protocol: str
) -> ReIDDataset:
    """Make a data set of one split. Queries are the test half under camera 1, the gallery is that under camera 2."""
    if not 0 <= split < len(splits):
        raise ValueError(f"split must be from 0 to {len(splits) - 1}, got {split}")
    chosen = splits[split]

    def tracklet(person: str, camid: int, pid: int) -> Tracklet:
        folder = cameras[camid - 1] / person
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{name}: {person!r} must be under both cameras, but {str(folder)!r} does not exist"
            )
        label = str(person_number(person))
        return Tracklet(list_frames(folder), pid, camid, f"cam{camid}-{person}", person=label)

    test = {person: person_number(person) for person in sorted(chosen.test)}
    train = sorted(chosen.train)
    return ReIDDataset(
        name=name,
        protocol=protocol,
        train=[tracklet(person, camid, pid) for pid, person in enumerate(train) for camid in (1, 2)],
        query=[tracklet(person, 1, pid) for person, pid in test.items()],
        gallery=[tracklet(person, 2, pid) for person, pid in test.items()],
        train_labels=train,
        split=split,
        num_splits=len(splits),
    )
