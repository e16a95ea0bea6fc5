"""PRID2011 in its official layout, with the splits that the field shares."""

from __future__ import annotations

from pathlib import Path

from nl3d.data.dataset import ReIDDataset, check_count
from nl3d.data.frames.names import list_frames, require_folder
from nl3d.data.readers.splits import choose_splits
from nl3d.data.readers.two_cameras import list_people, person_number, two_camera_dataset


def read_prid2011(
    root: str | Path,
    split: int = 0,
    *,
    split_file: str | Path | None = None,
    seed: int | None = None,
    min_frames: int = 22,
    check_counts: bool = True,
) -> ReIDDataset:
    """Read one split of PRID2011: the 178 people with more than 21 frames under each of two cameras.

    Results are the mean over ten splits, 89 people to train on and 89 to test. Queries are from camera ``a`` (camid 1),
    the gallery is camera ``b`` (camid 2). The paper names both these 178 and all 200 that appear under both cameras;
    later work uses the 178.

    Source: Hirzer et al. 2011, "Person Re-Identification by Descriptive and Discriminative Classification"; Liao et al.
    2018, arXiv:1807.05073, Sec. 4.1 and 4.2.

    Args:
        root: Folder with ``prid_2011/multi_shot/cam_a`` and ``cam_b``, and ``splits_prid2011.json``.
        split: Number of the split, from 0.
        split_file: Another JSON file of splits.
        seed: Seed to draw ten splits from. They are kept in ``split_file``, or in ``splits_seed<seed>.json`` below
            ``root``, and read from there if the file exists.
        min_frames: Fewest frames under each camera of a person that splits are drawn from.
        check_counts: Whether to refuse other numbers of people or splits than the published ones.

    Raises:
        FileNotFoundError: If a file or folder is missing, or a person of the splits is under one camera only.
        ValueError: If the split file does not parse, or a count is another.
    """
    root = require_folder(root, what="PRID2011 folder")
    cameras = [root / "prid_2011" / "multi_shot" / name for name in ("cam_a", "cam_b")]
    people, others = (list_people(camera, what="PRID2011 camera folder") for camera in cameras)

    def usable() -> list[str]:
        # the two cameras number strangers beyond 200 alike, but these are different people
        both = [name for name in people if name in set(others) and person_number(name) <= 200]
        return [name for name in both if all(len(list_frames(camera / name)) >= min_frames for camera in cameras)]

    splits, protocol = choose_splits(
        root, split_file, seed, people=usable, published=("splits_prid2011.json", "torchreid")
    )
    if check_counts:
        check_count("PRID2011 splits", len(splits), 10)
        for place, chosen in enumerate(splits):
            check_count(f"PRID2011 people of split {place}", len({*chosen.train, *chosen.test}), 178)
    return two_camera_dataset("PRID2011", cameras, splits, split, protocol=protocol)
