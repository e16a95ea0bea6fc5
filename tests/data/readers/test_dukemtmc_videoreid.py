import pytest

from nl3d.data.readers.dukemtmc_videoreid import read_dukemtmc_videoreid


def write(root, folder, camera, frames, name="{pid}_C{camera}_F{frame:04d}_X{at}.jpg"):
    own = root / folder
    own.mkdir(parents=True)
    for frame in frames:
        (own / name.format(pid=own.parent.name, camera=camera, frame=frame, at=30000 + 12 * frame)).touch()


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "train/0009/0001", 6, [1, 2, 3])
    write(tmp_path, "train/0010/0002", 2, [1, 2])
    write(tmp_path, "query/0003/0005", 1, [2, 3, 5])  # frame 1 and 4 are missing, as some are
    write(tmp_path, "gallery/0003/0006", 8, [1], name="{pid}C{camera}F{frame:04d}X{at}.jpg")  # the older names
    write(tmp_path, "gallery/0700/0007", 3, [1])
    return tmp_path


def test_reads_the_three_folders(root):
    data = read_dukemtmc_videoreid(root, check_counts=False)
    assert [(t.pid, t.camid, len(t)) for t in data.train] == [(0, 6, 3), (1, 2, 2)]
    assert tuple(data.train_labels) == (9, 10)
    assert [(t.pid, t.camid, t.name) for t in data.query] == [(3, 1, "query/0003/0005")]
    assert [(t.pid, t.camid) for t in data.gallery] == [(3, 8), (700, 3)]
    assert [path.name[8:13] for path in data.query[0].frames] == ["F0002", "F0003", "F0005"]
    assert data.queries_without_match() == []


def test_official_counts(tmp_path):
    def put(part, pid, number):
        write(tmp_path, f"{part}/{pid:04d}/{number:04d}", number % 8 + 1, [1])

    for number in range(2196):
        put("train", number % 702, number)
    for pid in range(702):
        put("query", pid, pid)
    for number in range(702, 2636):
        put("gallery", (number - 702) % 1110, number)
    assert read_dukemtmc_videoreid(tmp_path).counts()["gallery"][:2] == (1934, 1110)
    for pid in range(702):  # a gallery that repeats the queries is as official
        put("gallery", pid, pid)
    assert len(read_dukemtmc_videoreid(tmp_path).gallery) == 2636


def test_a_tracklet_under_two_cameras_is_refused(root):
    (root / "train/0009/0001/0009_C7_F0004_X31000.jpg").touch()
    with pytest.raises(ValueError, match=r"train/0009/0001' must hold one person under one camera"):
        read_dukemtmc_videoreid(root, check_counts=False)


def test_other_names_are_refused(root):
    write(root, "train/0011/0001", 6, [1], name="{frame}.jpg")
    with pytest.raises(ValueError, match=r"1.jpg' must be named like 0001_C6_F0099_X30823.jpg"):
        read_dukemtmc_videoreid(root, check_counts=False)
    (root / "train/0011").rename(root / "train/ann")
    with pytest.raises(ValueError, match=r"ann' must be named by a pid"):
        read_dukemtmc_videoreid(root, check_counts=False)


def test_missing_folder(root):
    (root / "gallery").rename(root / "x")
    with pytest.raises(FileNotFoundError, match=r"gallery' does not exist"):
        read_dukemtmc_videoreid(root)
    (root / "gallery").mkdir()
    with pytest.raises(FileNotFoundError, match=r"gallery' must hold tracklets"):
        read_dukemtmc_videoreid(root)


def test_refuses_other_counts(root):
    with pytest.raises(ValueError, match=r"training people must be 702 .* got 2"):
        read_dukemtmc_videoreid(root)
