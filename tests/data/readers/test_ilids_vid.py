import numpy as np
import pytest
from scipy.io import savemat

from nl3d.data.readers.ilids_vid import OFFICIAL_SPLITS, read_ilids_vid
from tests.data.layouts import write_ilids


@pytest.fixture
def layout(tmp_path):
    names, table = write_ilids(tmp_path)
    return tmp_path, names, table


@pytest.mark.parametrize("split", [0, 2])
def test_first_half_of_a_row_is_for_testing(layout, split):
    root, names, table = layout
    data = read_ilids_vid(root, split, check_counts=False)
    test = sorted(names[i - 1] for i in table[split, :3])
    train = sorted(names[i - 1] for i in table[split, 3:])
    assert [t.name for t in data.query] == [f"cam1-{name}" for name in test]
    assert [t.name for t in data.gallery] == [f"cam2-{name}" for name in test]
    assert [t.pid for t in data.query] == [int(name[6:]) for name in test] == [t.pid for t in data.gallery]
    assert list(data.train_labels) == train
    assert [(t.pid, t.camid) for t in data.train] == [(pid, camid) for pid in range(3) for camid in (1, 2)]
    assert (data.split, data.num_splits, data.protocol) == (split, 3, "official")
    assert data.queries_without_match() == []
    assert [path.name for path in data.query[0].frames] == [f"cam1_{test[0]}_00001.png", f"cam1_{test[0]}_00002.png"]


def test_official_counts(tmp_path):
    write_ilids(tmp_path, people=300, splits=10)
    data = read_ilids_vid(tmp_path, 9)
    assert [counts[:2] for counts in data.counts().values()] == [(300, 150), (150, 150), (150, 150)]


def test_drawn_splits_are_saved(layout):
    root, *_ = layout
    data = read_ilids_vid(root, 4, seed=7, check_counts=False)
    assert data.protocol == "seed 7"
    assert data.num_splits == 10
    saved = root / "splits_seed7.json"
    again = read_ilids_vid(root, 4, split_file=saved, check_counts=False)
    assert [t.name for t in again.query] == [t.name for t in data.query]
    assert again.protocol == "splits_seed7.json"


def test_other_mat_file(layout, tmp_path):
    root, names, _ = layout
    savemat(tmp_path / "mine.mat", {"ls_set": np.arange(1, 7)[None]})
    data = read_ilids_vid(root, split_file=tmp_path / "mine.mat", check_counts=False)
    assert data.protocol == "mine.mat"
    assert [t.pid for t in data.query] == [int(name[6:]) for name in names[:3]]


def test_a_person_under_one_camera_is_named(layout):
    root, names, _ = layout
    (root / "i-LIDS-VID/sequences/cam2" / names[2]).rename(root / "gone")
    with pytest.raises(FileNotFoundError, match=rf"'{names[2]}' must be under both cameras, but is under one only"):
        read_ilids_vid(root, check_counts=False)


def test_missing_split_table(layout):
    root, *_ = layout
    (root / OFFICIAL_SPLITS).unlink()
    with pytest.raises(FileNotFoundError, match=r"train_test_splits_ilidsvid.mat' does not exist; give a seed"):
        read_ilids_vid(root, check_counts=False)


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"iLIDS-VID folder .* does not exist"):
        read_ilids_vid(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match=r"iLIDS-VID camera folder .*cam1' does not exist"):
        read_ilids_vid(tmp_path)


@pytest.mark.parametrize("table", [np.arange(1, 6)[None], np.zeros((1, 6)), np.array([[1, 1, 2, 3, 4, 5]])])
def test_refuses_a_table_that_does_not_order_the_people(layout, table):
    root, *_ = layout
    savemat(root / OFFICIAL_SPLITS, {"ls_set": table})
    with pytest.raises(ValueError, match="must order the 6 people, each once"):
        read_ilids_vid(root, check_counts=False)


def test_refuses_other_counts_and_splits(layout):
    root, *_ = layout
    with pytest.raises(ValueError, match="iLIDS-VID people must be 300"):
        read_ilids_vid(root)
    with pytest.raises(ValueError, match="split must be from 0 to 2, got 3"):
        read_ilids_vid(root, 3, check_counts=False)


def test_empty_tracklet_is_named(layout):
    root, names, _ = layout
    for path in (root / "i-LIDS-VID/sequences/cam1" / names[0]).iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{names[0]}' must hold images"):
        read_ilids_vid(root, check_counts=False)
