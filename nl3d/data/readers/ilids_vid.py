"""iLIDS-VID in its official layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nl3d.data.dataset import ReIDDataset, check_count
from nl3d.data.frames.names import require_file, require_folder
from nl3d.data.readers.matfiles import read_mat
from nl3d.data.readers.splits import Split, choose_splits, load_splits
from nl3d.data.readers.two_cameras import list_people, two_camera_dataset

OFFICIAL_SPLITS = Path("train-test people splits", "train_test_splits_ilidsvid.mat")


def read_ilids_vid(
    root: str | Path,
    split: int = 0,
    *,
    split_file: str | Path | None = None,
    seed: int | None = None,
    check_counts: bool = True,
) -> ReIDDataset:
    """Read one split of iLIDS-VID: 300 people, each once under each of two cameras of an airport.

    Results are the mean over the ten official splits, 150 people to train on and 150 to test. Queries are from camera
    1, the gallery is camera 2.

    Source: Wang et al. 2014, "Person Re-Identification by Video Ranking"; Liao et al. 2018, arXiv:1807.05073, Sec. 4.1
    and 4.2.

    Args:
        root: Folder with ``i-LIDS-VID/sequences/cam1`` and ``cam2``, and ``train-test people splits``.
        split: Number of the split, from 0.
        split_file: Splits instead of the official ones: another ``.mat``, or JSON.
        seed: Seed to draw ten splits from. They are kept in ``split_file``, or in ``splits_seed<seed>.json`` below
            ``root``, and read from there if the file exists.
        check_counts: Whether to refuse other numbers of people or splits than the published ones.

    Raises:
        FileNotFoundError: If a file or folder is missing, or a person is under one camera only.
        ValueError: If the split table does not fit the folders, or a count is another.
    """
    root = require_folder(root, what="iLIDS-VID folder")
    cameras = [root / "i-LIDS-VID" / "sequences" / name for name in ("cam1", "cam2")]
    people, others = (list_people(camera, what="iLIDS-VID camera folder") for camera in cameras)
    alone = set(people) ^ set(others)
    if alone:
        # the split table counts sorted folders, so a missing one would shift all that follow
        raise FileNotFoundError(f"iLIDS-VID: {min(alone)!r} must be under both cameras, but is under one only")
    if check_counts:
        check_count("iLIDS-VID people", len(people), 300)
    splits, protocol = choose_splits(
        root,
        split_file,
        seed,
        people=lambda: people,
        published=(OFFICIAL_SPLITS, "official"),
        read=lambda path: _read_table(path, people) if path.suffix == ".mat" else load_splits(path),
    )
    if check_counts:
        check_count("iLIDS-VID splits", len(splits), 10)
    return two_camera_dataset("iLIDS-VID", cameras, splits, split, protocol=protocol)


def _read_table(path: Path, people: list[str]) -> list[Split]:
    require_file(path, what="split file", remedy="give a seed to draw splits and save them")
    table = read_mat(path, "ls_set")  # each row orders all people, from 1; its first half is for testing
    if table.shape[1] != len(people) or np.any(np.sort(table, axis=1) != np.arange(1, len(people) + 1)):
        raise ValueError(
            f"{str(path)!r}: each row of 'ls_set' must order the {len(people)} people, each once, got {table.shape}"
        )
    half = len(people) // 2
    return [
        Split(tuple(people[i - 1] for i in sorted(row[half:])), tuple(people[i - 1] for i in sorted(row[:half])))
        for row in table.tolist()
    ]
