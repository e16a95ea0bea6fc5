import h5py
import numpy as np
import pytest

from nl3d.data.readers.ls_vid import read_ls_vid

TRAIN = [
    ("tracklet_train/0004/0001", 4, 3, 2),
    ("tracklet_train/0002/0003", 2, 15, 1),
    ("tracklet_train/0002/0012", 2, 1, 3),
]
TEST = [
    ("tracklet_test/0100/1", 100, 1, 2),
    ("tracklet_test/0100/12", 100, 2, 3),  # begins like tracklet 1
    ("tracklet_test/0101/3", 101, 2, 1),
    ("tracklet_test/0101/4", 101, 9, 1),
]


def write(root, info="list_sequence", table="test/data/info_test.mat", query=(1, 3)):
    for part, lines in (("train", TRAIN), ("test", TEST)):
        path = root / info / f"list_seq_{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{prefix} {pid}\n" for prefix, pid, *_ in lines))
        for prefix, _, camera, frames in lines:
            (root / prefix).parent.mkdir(parents=True, exist_ok=True)
            for frame in range(1, frames + 1):
                (root / f"{prefix}_{frame * 5:06d}_{camera:02d}_0.jpg").touch()
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / table, "w") as file:
        file["query"] = np.array(query, dtype=np.float64)[:, None]
    return root


@pytest.mark.parametrize("layout", [{}, {"info": "info/list_sequence", "table": "info/data/info_test.mat"}])
def test_reads_both_layouts(tmp_path, layout):
    data = read_ls_vid(write(tmp_path, **layout), check_counts=False)
    assert [(t.pid, t.camid, len(t)) for t in data.train] == [(1, 3, 2), (0, 15, 1), (0, 1, 3)]
    assert tuple(data.train_labels) == (2, 4)
    assert [(t.pid, t.camid, len(t)) for t in data.gallery] == [(100, 1, 2), (100, 2, 3), (101, 2, 1), (101, 9, 1)]
    assert [t.name for t in data.query] == ["tracklet_test/0100/1", "tracklet_test/0101/3"]
    assert [path.name for path in data.query[0].frames] == ["1_000005_01_0.jpg", "1_000010_01_0.jpg"]


def test_torchreid_s_protocol_takes_queries_out(tmp_path):
    data = read_ls_vid(write(tmp_path), protocol="torchreid", check_counts=False)
    assert [t.name for t in data.gallery] == ["tracklet_test/0100/12", "tracklet_test/0101/4"]
    with pytest.raises(ValueError, match="protocol must be"):
        read_ls_vid(tmp_path, protocol="mine")


def test_missing_things_are_named(tmp_path):
    write(tmp_path)
    (tmp_path / "tracklet_test/0101/3_000005_02_0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"tracklet_test/0101/3' must have images, but no file begins so"):
        read_ls_vid(tmp_path, check_counts=False)
    (tmp_path / "list_sequence/list_seq_test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"list_seq_test.txt' does not exist, nor does 'info/"):
        read_ls_vid(tmp_path, check_counts=False)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ((0,), "'query' must be rows from 1 to 4 of the test table, got 0 to 0"),
        ((5,), "'query' must be rows from 1 to 4 of the test table, got 5 to 5"),
        ((2, 2), "rows of 'query' must differ"),
    ],
)
def test_refuses_impossible_queries(tmp_path, query, message):
    with pytest.raises(ValueError, match=message):
        read_ls_vid(write(tmp_path, query=query), check_counts=False)


def test_refuses_frames_of_two_cameras(tmp_path):
    write(tmp_path)
    (tmp_path / "tracklet_test/0101/4_000010_07_0.jpg").touch()
    with pytest.raises(ValueError, match="must name one camera in their third field"):
        read_ls_vid(tmp_path, check_counts=False)


def test_refuses_a_tracklet_listed_twice(tmp_path):
    write(tmp_path)
    path = tmp_path / "list_sequence/list_seq_train.txt"
    path.write_text(path.read_text() + "tracklet_train/0004/000 4\n")
    with pytest.raises(ValueError, match=r"'0001_000005_03_0.jpg' must be of one tracklet"):
        read_ls_vid(tmp_path, check_counts=False)


def test_refuses_lines_that_do_not_parse(tmp_path):
    write(tmp_path)
    (tmp_path / "list_sequence/list_seq_train.txt").write_text("tracklet_train/0004/0001 4\nonly/a/path\n")
    with pytest.raises(ValueError, match=r"list_seq_train.txt, line 2: a line must be a path and a pid"):
        read_ls_vid(tmp_path, check_counts=False)


def test_refuses_other_counts(tmp_path):
    with pytest.raises(ValueError, match="LS-VID training people must be 842"):
        read_ls_vid(write(tmp_path))
