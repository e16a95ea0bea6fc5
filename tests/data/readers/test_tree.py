import pytest

from nl3d.data.readers.tree import read_tracklet_folders, read_tree
from tests.data.layouts import write_tracklets


def test_without_parts_the_first_of_each_person_and_camera_is_the_query(tmp_path):
    write_tracklets(tmp_path, {"7/1/b": 2, "7/1/a": 1, "7/2/c": 3, "10/2/d": 1, "-1/1/x": 1})
    data = read_tree(tmp_path, junk_pids=(-1,))
    assert [t.name for t in data.query] == ["7/1/a", "7/2/c", "10/2/d"]
    assert [(t.pid, t.camid, len(t)) for t in data.gallery] == [(7, 1, 1), (7, 1, 2), (7, 2, 3), (10, 2, 1), (-1, 1, 1)]
    assert data.train == ()
    assert data.queries_without_match() == [2]  # 10 is under one camera only
    assert "one query of each person and camera" in data.protocol


def test_parts(tmp_path):
    write_tracklets(
        tmp_path, {"train/5/1/a": 1, "train/3/2/b": 1, "query/ann/2/a": 1, "gallery/ann/1/a": 1, "gallery/bob/1/b": 1}
    )
    data = read_tree(tmp_path)
    assert [(t.pid, t.camid) for t in data.train] == [(0, 2), (1, 1)]
    assert tuple(data.train_labels) == ("3", "5")
    assert [(t.pid, t.camid, t.person) for t in data.query] == [(1, 2, "ann")]
    assert [(t.pid, t.camid, t.person) for t in data.gallery] == [(1, 1, "ann"), (2, 1, "bob")]
    assert [t.person for t in data.train] == ["3", "5"]


def test_junk_beside_names(tmp_path):
    write_tracklets(tmp_path, {"ann/1/a": 1, "bob/1/b": 1, "-1/1/x": 1, "-1.0/2/x": 1, "0000/2/y": 1})
    with pytest.raises(ValueError, match=r"folders '-1' and '-1.0' of .* have one label"):
        read_tree(tmp_path)
    (tmp_path / "-1.0").rename(tmp_path.parent / "gone")
    data = read_tree(tmp_path, junk_pids=(-1,), distractor_pids=(0,))
    assert [t.name for t in data.query] == ["ann/1/a", "bob/1/b"]
    assert {t.person: t.pid for t in data.gallery} == {"-1": -1, "0": 0, "ann": 1, "bob": 2}
    write_tracklets(tmp_path, {"nan/1/a": 1})
    with pytest.raises(ValueError, match=r"nan' must be named by a label: label must .* missing value"):
        read_tree(tmp_path)


def test_only_training(tmp_path):
    write_tracklets(tmp_path, {"train/5/1/a": 1})
    assert len(read_tree(tmp_path).train) == 1


def test_names_of_cameras_are_numbered_alike_in_all_parts(tmp_path):
    write_tracklets(tmp_path, {"train/1/north/a": 1, "query/2/south/a": 1, "gallery/2/door/a": 1})
    data = read_tree(tmp_path)
    assert (data.train[0].camid, data.query[0].camid, data.gallery[0].camid) == (2, 3, 1)


def test_frames_in_natural_order(tmp_path):
    write_tracklets(tmp_path, {"1/1/a": 12}, name="{frame}.jpg")
    assert [path.stem for path in read_tree(tmp_path).query[0].frames] == [str(number) for number in range(1, 13)]


@pytest.mark.parametrize("place", ["", "7", "7/1"])
@pytest.mark.parametrize("part", ["", "query/"])
def test_images_outside_a_tracklet_are_not_lost(tmp_path, part, place):
    write_tracklets(tmp_path, {"query/7/1/a": 1, "gallery/7/2/a": 1} if part else {"7/1/a": 1, "7/2/a": 1})
    (tmp_path / part / place / "x.png").touch()
    with pytest.raises(ValueError, match=r"x.png' must be in the folder of a tracklet, pid/camid/tracklet"):
        read_tree(tmp_path)


def test_tracklets_without_labels(tmp_path):
    write_tracklets(tmp_path, {"t10": 1, "t9": 2, ".cache": 1})
    assert [(t.name, len(t), t.pid, t.person) for t in read_tracklet_folders(tmp_path)] == [
        ("t9", 2, None, None), ("t10", 1, None, None),
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"folder '.*none' does not exist"):
        read_tracklet_folders(tmp_path / "none")
    inside = tmp_path / "in\udce9"
    try:
        write_tracklets(inside, {"t": 1})
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    with pytest.raises(ValueError, match=r"in\\udce9' must have a path in UTF-8, which outputs can name; rename it"):
        read_tracklet_folders(inside)


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no' does not exist"):
        read_tree(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="must hold tracklets, pid/camid/tracklet"):
        read_tree(tmp_path)
    write_tracklets(tmp_path, {"query/1/1/a": 1})
    with pytest.raises(FileNotFoundError, match="must hold both query and gallery, got query"):
        read_tree(tmp_path)
    write_tracklets(tmp_path, {"gallery/1/1/a": 0})
    with pytest.raises(FileNotFoundError, match=r"gallery/1/1/a' must hold images"):
        read_tree(tmp_path)
