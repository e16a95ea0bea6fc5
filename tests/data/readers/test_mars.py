from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from nl3d.data.readers.mars import read_mars
from tests.data.layouts import official_mars_rows, write_mars


@pytest.fixture
def root(tmp_path):
    return write_mars(tmp_path / "mars")


def facts(tracklets):
    return [(t.pid, t.camid, len(t)) for t in tracklets]


def test_official_protocol_searches_all_rows(root):
    data = read_mars(root, check_counts=False)
    assert facts(data.train) == [(0, 1, 3), (0, 2, 2), (1, 1, 4), (1, 5, 1), (2, 6, 2)]
    assert tuple(data.train_labels) == (1, 3, 9)
    assert facts(data.query) == [(2, 1, 2), (2, 2, 2), (4, 1, 2), (4, 6, 2), (6, 4, 2), (6, 5, 2)]
    assert len(data.gallery) == 11
    assert {t.name for t in data.query} <= {t.name for t in data.gallery}
    assert data.evaluate_options() == {"junk_pids": (-1,), "distractor_pids": (0,), "ap": "trapezoid"}
    assert data.queries_without_match() == []
    assert data.protocol == "official"


def test_torchreid_s_protocol_drops_queries_and_junk(root):
    data = read_mars(root, protocol="torchreid", check_counts=False)
    assert facts(data.gallery) == [(0, 3, 3), (2, 2, 1), (0, 1, 1)]
    assert data.queries_without_match() == [1, 2, 3, 4, 5]  # pid 2 under camera 1 finds the one under camera 2
    assert (data.protocol, data.ap) == ("torchreid", "interpolated")


def test_the_test_half_alone(root):
    whole = read_mars(root, check_counts=False)
    for name in ("bbox_train", "info/train_name.txt", "info/tracks_train_info.mat"):
        (root / name).rename(root.parent / Path(name).name)
    with pytest.raises(FileNotFoundError, match="bbox_train' does not exist"):
        read_mars(root, check_counts=False)
    data = read_mars(root, check_counts=False, test_only=True)
    assert facts(data.query) == facts(whole.query)
    assert facts(data.gallery) == facts(whole.gallery)
    assert (data.train, tuple(data.train_labels)) == ((), ())


def test_labels_are_those_of_the_tables(root):
    data = read_mars(root, check_counts=False)
    assert [t.person for t in data.train] == ["1", "1", "3", "3", "9"]
    assert [t.person for t in data.gallery[:3]] == ["-1", "0", "2"]
    assert [t.camera for t in data.gallery[:3]] == ["1", "3", "1"]


def test_frames_are_those_of_the_name_list(root):
    data = read_mars(root, check_counts=False)
    assert [frame.relative_to(root).as_posix() for frame in data.train[2].frames] == [
        f"bbox_train/0003/0003C1T0003F00{number}.jpg" for number in (1, 2, 3, 4)
    ]
    assert data.gallery[0].frames[0].relative_to(root).as_posix() == "bbox_test/00-1/00-1C1T0001F001.jpg"
    assert data.train[2].read(0).shape == (3, 16, 8)


def test_frames_are_sorted(root):
    path = root / "info" / "train_name.txt"
    names = path.read_text().split()
    path.write_text("\n".join([*names[:3][::-1], *names[3:]]))
    frames = read_mars(root, check_counts=False).train[0].frames
    assert [frame.name[-7:-4] for frame in frames] == ["001", "002", "003"]


def test_official_counts_on_the_official_shape(tmp_path):
    train, test, query = official_mars_rows()
    root = write_mars(tmp_path, train=train, test=test, query=query, images=False)
    data = read_mars(root, check_files=False)
    assert data.counts() == {
        "train": (8298, 625, 509914),
        "query": (1980, 626, sum(len(t) for t in data.query)),
        "gallery": (12180, 634, 681089),
    }
    assert data.queries_without_match() == []
    other = read_mars(root, protocol="torchreid", check_files=False)
    assert other.counts()["gallery"][:2] == (9330, 620)
    lost = other.queries_without_match()
    assert len(lost) == 140
    assert len({other.query[place].pid for place in lost}) == 126


@pytest.mark.parametrize(
    "gone",
    ["info", "bbox_train", "bbox_test", "info/test_name.txt", "info/tracks_train_info.mat", "info/query_IDX.mat"],
)
def test_names_what_is_missing(root, gone):
    (root / gone).rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"MARS.*{gone}' does not exist"):
        read_mars(root, check_counts=False)


def test_missing_images_are_named_unless_unchecked(root):
    (root / "bbox_train" / "0003" / "0003C1T0003F002.jpg").unlink()
    (root / "bbox_train" / "0003" / "0003C1T0003F004.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"0003C1T0003F002.jpg' does not exist, nor do 1 others"):
        read_mars(root, check_counts=False)
    assert len(read_mars(root, check_counts=False, check_files=False).train[2]) == 4


def test_missing_folder_of_a_person_is_named(root):
    (root / "bbox_test" / "0004").rename(root / "0004")
    with pytest.raises(FileNotFoundError, match=r"folder .*0004' does not exist"):
        read_mars(root, check_counts=False)


def rewrite(root, name, key, table):
    savemat(root / "info" / name, {key: np.array(table)})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1, 2, 3]], r"must be \(tracklets, 4\) .* got \(1, 3\)"),
        ([[1, 99, 1, 1]], r"row 1 must name lines from 1 to 12 of train_name.txt, got 1 to 99"),
        ([[1, 3, 1, 1], [0, 2, 1, 2]], r"row 2 must name lines from 1 to 12"),
        ([[1, 4, 1, 1]], r"line 4: row 1 .* wants an image of pid 1 under camera 1, got '0001C2T0002F001.jpg'"),
        ([[1, 3, 7, 1]], r"line 1: row 1 .* wants an image of pid 7 under camera 1"),
        ([[1.5, 3, 1, 1]], r"must be a table of whole numbers"),
    ],
)
def test_refuses_tables_that_contradict_the_names(root, table, message):
    rewrite(root, "tracks_train_info.mat", "track_train_info", table)
    with pytest.raises(ValueError, match=message):
        read_mars(root, check_counts=False)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1, 2], [3, 4]], r"one row or one column, got \(2, 2\)"),
        ([[3, 12]], r"rows from 1 to 11 of the test table, got 3 to 12"),
        ([[3, 3]], r"more than once"),
        ([[2]], r"row 2 has pid 0"),
        ([[1]], r"row 1 has pid -1"),
    ],
)
def test_refuses_impossible_queries(root, table, message):
    rewrite(root, "query_IDX.mat", "query_IDX", table)
    with pytest.raises(ValueError, match=message):
        read_mars(root, check_counts=False)


def test_refuses_other_counts_than_the_published(root):
    with pytest.raises(ValueError, match=r"MARS train tracklets must be 8,298 .* got 5; give check_counts=False"):
        read_mars(root)


def test_refuses_an_unknown_protocol(root):
    with pytest.raises(ValueError, match="protocol must be 'official' or 'torchreid', got 'mine'"):
        read_mars(root, protocol="mine")


def test_refuses_junk_in_training(root):
    path = root / "info" / "train_name.txt"
    path.write_text(path.read_text().replace("0009C6", "0000C6"))
    rewrite(root, "tracks_train_info.mat", "track_train_info", [[11, 12, 0, 6]])
    with pytest.raises(ValueError, match="train pids must be above 0, got 0"):
        read_mars(root, check_counts=False, check_files=False)
