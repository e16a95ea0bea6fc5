"""Tiny data sets in the layouts of the published ones, written by the tests."""

import numpy as np
from scipy.io import savemat

from tests.data.pictures import write_jpeg

MARS_TRAIN = [  # pid, camera, frames
    (1, 1, 3), (1, 2, 2), (3, 1, 4), (3, 5, 1), (9, 6, 2),
]  # fmt: skip
MARS_TEST = [
    (-1, 1, 2), (0, 3, 3), (2, 1, 2), (2, 2, 2), (2, 2, 1), (4, 1, 2), (4, 6, 2), (-1, 2, 1), (0, 1, 1),
    (6, 4, 2), (6, 5, 2),
]  # fmt: skip
MARS_QUERY = [3, 4, 6, 7, 10, 11]  # rows from 1: pid 2 (cameras 1, 2), 4 (1, 6), 6 (4, 5)


def write_mars(root, *, train=MARS_TRAIN, test=MARS_TEST, query=MARS_QUERY, images=True):
    info = root / "info"
    info.mkdir(parents=True)
    for part, rows in (("train", train), ("test", test)):
        names, table = [], []
        for number, (pid, camera, length) in enumerate(rows, 1):
            person = "00-1" if pid == -1 else f"{pid:04d}"
            table.append((len(names) + 1, len(names) + length, pid, camera))
            names += [f"{person}C{camera}T{number:04d}F{frame:03d}.jpg" for frame in range(1, length + 1)]
        (info / f"{part}_name.txt").write_text("\n".join(names) + "\n")
        savemat(info / f"tracks_{part}_info.mat", {f"track_{part}_info": np.array(table, dtype=np.float64)})
        folder = root / f"bbox_{part}"
        folder.mkdir()
        for name in names if images else ():
            write_jpeg(folder / name[:4] / name)
    savemat(info / "query_IDX.mat", {"query_IDX": np.array([query], dtype=np.uint16)})
    return root


def official_mars_rows():
    """Rows with every count that the published tables have, people who lose their matches included."""
    train = [(pid % 625 + 1, pid % 6 + 1, 0) for pid in range(8298)]
    people = iter(range(1, 635))
    rows, query = [], []

    def person(query_cameras, other_cameras):
        pid = next(people)
        for camera in query_cameras:
            rows.append((pid, camera, 0))
            query.append(len(rows))
        rows.extend((pid, camera, 0) for camera in other_cameras)
        return pid

    for _ in range(14):  # everything they have is a query
        person([1, 2], [])
    for _ in range(112):  # what is left of them is under the camera of one of their two queries
        person([1, 2], [1])
    for number in range(500):
        person([1, 2, 3, 4] if number < 228 else [1, 2, 3], [1, 2])
    for _ in range(8):  # nobody looks for them
        person([], [1])
    rows += [(rows[500][0], 1, 0)] * (8062 - len(rows))
    rows += [(-1, 1, 0)] * 870 + [(0, 2, 0)] * 3248
    return _with_frames(train, 509914), _with_frames(rows, 681089), query


def _with_frames(rows, total):
    each, more = divmod(total, len(rows))
    return [(pid, camera, each + (place < more)) for place, (pid, camera, _) in enumerate(rows)]


def write_two_cameras(folders, people, frames=2, suffix="png"):
    for folder in folders:
        for person in people:
            own = folder / person
            own.mkdir(parents=True)
            for frame in range(1, frames + 1):
                (own / f"{folder.name}_{person}_{frame:05d}.{suffix}").touch()


def write_ilids(root, people=6, splits=3):
    names = [f"person{3 * number + 1:03d}" for number in range(people)]  # numbers with holes, as published
    write_two_cameras([root / "i-LIDS-VID" / "sequences" / camera for camera in ("cam1", "cam2")], names)
    rng = np.random.default_rng(0)
    table = np.stack([rng.permutation(people) + 1 for _ in range(splits)])
    (root / "train-test people splits").mkdir()
    savemat(root / "train-test people splits" / "train_test_splits_ilidsvid.mat", {"ls_set": table})
    return names, table


def write_tracklets(root, layout, name="{frame:04d}.jpg"):
    """Write ``{folder: number of frames}`` below a root, as empty files."""
    for folder, frames in layout.items():
        (root / folder).mkdir(parents=True)
        for frame in range(1, frames + 1):
            (root / folder / name.format(frame=frame)).touch()
