import os
import pickle
from pathlib import Path

import pytest

from nl3d.data.frames.names import (
    FrameNames,
    is_utf8,
    list_folders,
    list_frames,
    natural_key,
    require_frames,
    sort_names,
)


def test_paths_are_put_together_when_asked_for():
    frames = FrameNames("some/where", [f"{number:03d}.jpg" for number in range(10)])
    assert frames[3] == Path("some/where/003.jpg")
    assert frames[-1] == Path("some/where/009.jpg")
    assert [path.name for path in frames[7:]] == ["007.jpg", "008.jpg", "009.jpg"]
    assert list(frames)[2] == frames[2]
    with pytest.raises(IndexError):
        frames[10]


def test_slices_share_the_names():
    frames = FrameNames("folder", ["a.jpg", "b.jpg", "c.jpg"])
    assert frames[1:].names.base is frames.names


def test_names_beyond_ascii_and_pickling():
    frames = FrameNames("ordner", ["größe 1.jpg", "größe 2.jpg"])
    assert frames[1] == Path("ordner/größe 2.jpg")
    again = pickle.loads(pickle.dumps(frames))
    assert again == frames
    assert hash(again) == hash(frames)
    assert again != FrameNames("ordner", ["a.jpg", "b.jpg"])


@pytest.mark.parametrize(
    "names",
    [
        ["f10.jpg", "f9.jpg", "f100.jpg"],
        ["a1b10.jpg", "a10b1.jpg", "a2b2.jpg"],
        ["0010.jpg", "0002.jpg"],
        ["x.jpg", "X.jpg"],
        [],
    ],
)
def test_sorting_is_natural_by_either_way(names):
    assert sort_names(names) == sorted(names, key=natural_key)


def test_list_frames_leaves_other_files_alone(tmp_path):
    for name in ("10.jpg", "9.JPG", ".hidden.jpg", "Thumbs.db", "notes.txt", "11.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_frames(tmp_path)] == ["9.JPG", "10.jpg", "11.png"]


def test_list_frames_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone' does not exist"):
        list_frames(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="must hold images"):
        list_frames(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [("000001.jpg", "000001.png"), ("000001.jpg", "1.jpg"), ("f.JPG", "f.jpg"), ("a1b02.jpg", "a01b2.webp")],
)
def test_an_image_is_numbered_once(tmp_path, one, other):
    for name in (one, other, "000002.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"must hold each image once, got .*{other}"):
        list_frames(tmp_path)


def test_a_name_without_number_comes_first(tmp_path):
    for name in ("name3.jpg", "name.jpg", "name10.png", "name2.jpg"):
        (tmp_path / name).touch()
    assert [path.name for path in list_frames(tmp_path)] == ["name.jpg", "name2.jpg", "name3.jpg", "name10.png"]
    assert sort_names(["v1.10", "v1.2", "a2", "a"]) == ["a", "a2", "v1.2", "v1.10"]
    assert sort_names(["9" * 5000, "10"]) == ["10", "9" * 5000]


def test_folders_in_a_tracklet_are_named(tmp_path):
    (tmp_path / "cam1" / "t").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"must hold images .* got none but folders such as 'cam1'"):
        list_frames(tmp_path)


def test_list_folders(tmp_path):
    for name in ("p10", "p9", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("p9")
    assert list_folders(tmp_path, layout="x") == ["link", "p9", "p10"]
    (tmp_path / "lost").symlink_to("gone")
    with pytest.raises(ValueError, match=r"link .*lost' must lead to a folder, but leads nowhere"):
        list_folders(tmp_path, layout="x")
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"image .*a.jpg' must be in the folder of a tracklet, pid/t/f.jpg; move it"):
        list_folders(tmp_path, layout="pid/t/f.jpg", remedy="move it")


def test_folders_that_are_not_utf8_are_named(tmp_path):
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/in\xe9")  # noqa: PTH102
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    with pytest.raises(ValueError, match=r"folder 'in\\udce9' of .* must have a name in UTF-8; rename it"):
        list_folders(tmp_path, layout="x")
    assert is_utf8("in\u00e9")
    inside = os.fsdecode(os.fsencode(tmp_path) + b"/in\xe9")
    Path(inside, os.fsdecode(b"\xe9.jpg")).touch()
    assert [path.exists() for path in list_frames(inside)] == [True]  # only names that are written must be UTF-8


def test_require_frames_names_the_first(tmp_path):
    (tmp_path / "1.jpg").touch()
    require_frames([(tmp_path, ["1.jpg"])], what="list")
    with pytest.raises(FileNotFoundError, match=r"list: image .*2.jpg' does not exist, nor do 1 others"):
        require_frames([(tmp_path, ["10.jpg", "1.jpg", "2.jpg"])], what="list")
