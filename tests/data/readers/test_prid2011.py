import json

import pytest

from nl3d.data.readers.prid2011 import read_prid2011
from nl3d.data.readers.splits import load_splits
from tests.data.layouts import write_two_cameras

PEOPLE = [f"person_{number:04d}" for number in (1, 2, 3, 5)]


@pytest.fixture
def root(tmp_path):
    folders = [tmp_path / "prid_2011" / "multi_shot" / name for name in ("cam_a", "cam_b")]
    write_two_cameras(folders, PEOPLE, frames=22)
    write_two_cameras(folders, ["person_0004"], frames=21)
    write_two_cameras(folders, ["person_0300"], frames=22)  # the same number for two strangers
    splits = [{"train": PEOPLE[:2], "test": PEOPLE[:1:-1]}, {"train": PEOPLE[2:], "test": PEOPLE[:2]}]
    (tmp_path / "splits_prid2011.json").write_text(json.dumps(splits))
    return tmp_path


def test_splits_of_the_field(root):
    data = read_prid2011(root, 0, check_counts=False)
    assert [(t.pid, t.camid, t.name) for t in data.query] == [(3, 1, "cam1-person_0003"), (5, 1, "cam1-person_0005")]
    assert [(t.pid, t.camid) for t in data.gallery] == [(3, 2), (5, 2)]
    assert [(t.pid, t.camid) for t in data.train] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert (data.protocol, data.num_splits) == ("torchreid", 2)
    assert data.gallery[0].frames[0].parts[-3] == "cam_b"


def test_drawing_takes_people_with_enough_frames_under_both_cameras(root):
    data = read_prid2011(root, seed=1, check_counts=False)
    split = load_splits(root / "splits_seed1.json")[0]
    assert sorted(split.train + split.test) == PEOPLE
    assert data.protocol == "seed 1"
    more = read_prid2011(root, seed=1, min_frames=21, split_file=root / "other.json", check_counts=False)
    assert {*more.train_labels, *(t.name[5:] for t in more.query)} == {*PEOPLE, "person_0004"}


def test_a_person_under_one_camera_is_named(root):
    (root / "prid_2011/multi_shot/cam_b/person_0005").rename(root / "gone")
    with pytest.raises(FileNotFoundError, match=r"'person_0005' must be under both cameras, but .*cam_b"):
        read_prid2011(root, check_counts=False)


def test_names_that_are_no_people(root):
    (root / "splits_prid2011.json").write_text('[{"train": ["person_0001"], "test": ["ann"]}]')
    with pytest.raises(ValueError, match="people must be named like 'person001', got 'ann'"):
        read_prid2011(root, check_counts=False)


def test_missing_split_file(root):
    (root / "splits_prid2011.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"splits_prid2011.json' does not exist; give a seed"):
        read_prid2011(root)


def test_refuses_other_counts(root):
    with pytest.raises(ValueError, match="PRID2011 splits must be 10"):
        read_prid2011(root)
