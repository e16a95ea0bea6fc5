from pathlib import Path

import pytest

from nl3d.data.dataset import ReIDDataset
from nl3d.data.readers.manifest import read_manifest, read_manifest_tracklets, write_manifest
from nl3d.data.readers.tree import read_tree
from nl3d.data.tracklets import Tracklet
from tests.data.layouts import write_tracklets
from tests.data.pictures import picture

HEADER = "path,pid,camid,tracklet,part\n"


def write(tmp_path, text, name="m.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.fixture
def files(tmp_path):
    write_tracklets(tmp_path, {"a": 3, "b": 2})
    return tmp_path


def names(tracklet):
    return [frame.name for frame in tracklet.frames]


def test_rows_may_stand_anywhere(files):
    path = write(
        files,
        HEADER + "a/0002.jpg,7,1,x,query\nb,7,2,y,gallery\na/0001.jpg,7,1,x,query\na/0003.jpg,40,1,z,train\n",
    )
    data = read_manifest(path)
    assert names(data.query[0]) == ["0001.jpg", "0002.jpg"]
    assert names(data.gallery[0]) == ["0001.jpg", "0002.jpg"]
    assert [(t.pid, t.camid) for t in (*data.train, *data.query, *data.gallery)] == [(0, 1), (7, 1), (7, 2)]
    assert data.train_labels == ("40",)
    assert data.query[0].frames[0] == files / "a/0001.jpg"


def test_labels_in_every_form(files):
    rows = "a/0001.jpg,ann,1.0,x,query\na/0002.jpg,-1.0,1,y,gallery\na/0003.jpg, ann ,02,z,gallery\n"
    rows += "b/0001.jpg,0007,door,u,gallery\nb/0002.jpg,7.0,door,u,gallery\n"
    data = read_manifest(write(files, HEADER + rows), junk_pids=(-1,))
    assert [(t.pid, t.camid, t.person, t.camera) for t in (*data.query, *data.gallery)] == [
        (1, 1, "ann", "1"), (-1, 1, "-1", "1"), (1, 2, "ann", "2"), (7, 3, "7", "door"),
    ]  # fmt: skip
    with pytest.raises(
        ValueError, match=r"m.csv, line 3: pid: label must .* got 'nan', which stands for a missing value"
    ):
        read_manifest_tracklets(write(files, "path,pid\na/0001.jpg,\na/0002.jpg,nan\n"))


def test_frame_column_orders_frames(files):
    path = write(files, "path,pid,camid,tracklet,part,frame\na/0001.jpg,1,1,x,query,9\na/0003.jpg,1,1,x,query,2\n")
    assert names(read_manifest(path).query[0]) == ["0003.jpg", "0001.jpg"]


def test_tracklets_need_paths_alone(files):
    tracklets = read_manifest_tracklets(write(files, "path\na\nb/0002.jpg\n"))
    assert [(t.name, len(t), t.pid, t.camid) for t in tracklets] == [
        ("a", 3, None, None),
        ("b/0002.jpg", 1, None, None),
    ]
    tracklets = read_manifest_tracklets(write(files, "path,pid,camid,tracklet\na/0001.jpg,5,,t\na/0002.jpg,5,,t\n"))
    assert [(t.name, len(t), t.pid, t.camid) for t in tracklets] == [("t", 2, 5, None)]


def test_what_is_written_is_read_back(tmp_path):
    write_tracklets(
        tmp_path, {"data/train/5/1/a": 1, "data/train/3/2/b": 11, "data/query/ann/2/a": 2, "data/gallery/ann/1/a": 1}
    )
    data = read_tree(tmp_path / "data")
    write_manifest(tmp_path / "m.csv", data)
    again = read_manifest(tmp_path / "m.csv")
    for part in ("train", "query", "gallery"):
        for one, other in zip(getattr(data, part), getattr(again, part), strict=True):
            assert (one.pid, one.camid, names(one)) == (other.pid, other.camid, names(other))
            assert (one.person, one.camera) == (other.person, other.camera)
            assert [path.resolve() for path in one.frames] == [path.resolve() for path in other.frames]
    assert tuple(again.train_labels) == tuple(data.train_labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "m.csv"]


def test_only_files_can_be_listed(tmp_path):
    query = [Tracklet([picture((1, 2, 3))], pid=1, camid=1)]
    with pytest.raises(TypeError, match="frames must be image files to be listed, got Tensor"):
        write_manifest(tmp_path / "m.csv", ReIDDataset(name="x", query=query))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,pid\na,1\n",
            r"must have the columns path, pid, camid, tracklet, part in its first line, got 'path', 'pid'",
        ),
        ("", r"must have the columns .* got none"),
        (HEADER, "at least one row"),
        (HEADER + "a,1,1,x,test\n", r"line 2: part must be train, query or gallery, got 'test'"),
        (HEADER + "a,,1,x,query\n", "line 2: pid must not be empty"),
        (
            HEADER + "a/0001.jpg,1,1,x,query\na/0002.jpg,1,2,x,query\n",
            r"line 3: tracklet 'x' must be of one person under",
        ),
        (
            HEADER + "a/0001.jpg,1,1,x,query\na/0002.jpg,1,1,x,query\na/0001.jpg,1,1,x,query\n",
            r"line 2: a tracklet must list each image once, got 'a/0001.jpg' twice",
        ),
        (HEADER + "a,1,1,x,query\nb,1,1,x,query\n", r"one folder or images .* got 'a' among 2 rows"),
    ],
)
def test_broken_tables(files, text, message):
    with pytest.raises(ValueError, match=message):
        read_manifest(write(files, text))


def test_frame_numbers_must_be_whole_and_differ(files):
    header = "path,pid,camid,tracklet,part,frame\n"
    with pytest.raises(ValueError, match="line 2: frame must be a whole number, got 'one'"):
        read_manifest(write(files, header + "a/0001.jpg,1,1,x,query,one\n"))
    with pytest.raises(ValueError, match="frame numbers of a tracklet must differ"):
        read_manifest(write(files, header + "a/0001.jpg,1,1,x,query,1\na/0002.jpg,1,1,x,query,1\n"))


def test_missing_files_are_named_unless_unchecked(files):
    path = write(files, HEADER + "a/0009.jpg,1,1,x,query\n")
    with pytest.raises(FileNotFoundError, match=r"manifest: image .*a/0009.jpg' does not exist"):
        read_manifest(path)
    assert len(read_manifest(path, check_files=False).query) == 1
    with pytest.raises(FileNotFoundError, match=r"tracklet folder .*c' does not exist"):
        read_manifest(write(files, HEADER + "c,1,1,x,query\n"))
    with pytest.raises(FileNotFoundError, match=r"manifest .*none.csv' does not exist"):
        read_manifest(files / "none.csv")


def test_absolute_paths(files):
    data = read_manifest(write(files, HEADER + f"{files / 'a' / '0001.jpg'},1,1,x,query\n", name="abs.csv"))
    assert data.query[0].frames[0] == Path(files / "a" / "0001.jpg")


def test_frames_of_a_tracklet_keep_what_their_paths_share_once(files):
    path = write(files, HEADER + "a/0002.jpg,7,1,x,query\na/0001.jpg,7,1,x,query\nb/0001.jpg,8,1,y,query\n")
    one, _ = read_manifest(path).query
    assert one.frames.names.tolist() == [b"0001.jpg", b"0002.jpg"]
    assert list(one.frames) == [files / "a/0001.jpg", files / "a/0002.jpg"]
    mixed = write(files, HEADER + "b/0001.jpg,7,1,x,query\na/0002.jpg,7,1,x,query\n", name="mixed.csv")
    assert list(read_manifest(mixed).query[0].frames) == [files / "a/0002.jpg", files / "b/0001.jpg"]


def test_paths_of_windows(files):
    (one,) = read_manifest_tracklets(write(files, "path,tracklet\na\\0001.jpg,t\na\\0002.jpg,t\n"))
    assert list(one.frames) == [files / "a/0001.jpg", files / "a/0002.jpg"]


def test_frame_numbers_may_be_written_as_floats(files):
    path = write(files, "path,tracklet,frame\na/0001.jpg,t,10.0\na/0002.jpg,t,9.0\n")
    assert names(read_manifest_tracklets(path)[0]) == ["0002.jpg", "0001.jpg"]


def test_a_row_may_end_early_and_lines_may_be_empty(files):
    path = write(files, "path,pid,camid\na/0001.jpg,5,2\n\nb/0001.jpg\n")
    assert [(t.pid, t.camid) for t in read_manifest_tracklets(path)] == [(5, 2), (None, None)]
    with pytest.raises(ValueError, match="line 2: camid must not be empty"):
        read_manifest(write(files, HEADER + "a,1\n"))


def test_frames_are_looked_for_a_few_at_a_time(files, monkeypatch):
    monkeypatch.setattr("nl3d.data.readers.manifest.CHECKED_AT_ONCE", 1)
    rows = "path\na/0001.jpg\nb/0001.jpg\na/0002.jpg\n"
    assert len(read_manifest_tracklets(write(files, rows))) == 3
    with pytest.raises(FileNotFoundError, match=r"b/0009.jpg' does not exist"):
        read_manifest_tracklets(write(files, rows + "b/0009.jpg\n"))
