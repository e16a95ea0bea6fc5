import sys

import numpy as np
import pytest

from nl3d.data.frames.video import open_frames
from tests.data.films import film, write_video
from tests.data.pictures import write_jpeg


def test_gives_the_wanted_frames_by_number(tmp_path):
    images = film(9)
    frames = open_frames(write_video(tmp_path / "film.mkv", images))
    read = dict(frames.read({2, 3, 7, 9}, last=8))
    assert list(read) == [2, 3, 7]  # 9 comes after the last
    for number, image in read.items():
        assert np.array_equal(image.permute(1, 2, 0).numpy(), images[number - 1])


def test_stops_decoding_after_the_last(tmp_path):
    path = write_video(tmp_path / "film.avi", film(30))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # what comes later is not looked at
    assert [number for number, _ in open_frames(path).read({1, 4}, last=4)] == [1, 4]


def test_refuses_a_video_that_is_too_short(tmp_path):
    frames = open_frames(write_video(tmp_path / "film.avi", film(5)))
    frames.require(5)
    with pytest.raises(ValueError, match=r"film.avi' must have 6 frames, the last with a box, got 5; check that"):
        list(frames.read({6}, last=6))
    with pytest.raises(ValueError, match="must have 6 frames"):
        frames.require(6)


def test_refuses_what_is_no_video(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"no video at all" * 99)
    for use in (lambda frames: frames.require(1), lambda frames: list(frames.read({1}, last=1))):
        with pytest.raises(ValueError, match=r"video '.*film.mp4' cannot be read: Invalid data"):
            use(open_frames(path))
    with pytest.raises(FileNotFoundError, match=r"video '.*none.mp4' does not exist"):
        open_frames(tmp_path / "none.mp4")


def test_without_pyav_says_which_extra_to_install(tmp_path, monkeypatch):
    path = write_video(tmp_path / "film.mkv", film(1))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs PyAV; install it with: pip install 'nl3d\[video\]'"):
        open_frames(path)


def test_a_folder_of_images_is_a_film_in_natural_order(tmp_path):
    for number in (1, 2, 10):
        write_jpeg(tmp_path / f"frame{number}.jpg", colour=(number * 20,) * 3)
    (tmp_path / "notes.txt").write_text("not a frame")
    read = dict(open_frames(tmp_path).read({2, 3}, last=3))
    assert [round(image.float().mean().item() / 20) for image in read.values()] == [2, 10]
    with pytest.raises(ValueError, match="must have 4 frames, the last with a box, got 3"):
        open_frames(tmp_path).require(4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold images .* got none"):
        open_frames(tmp_path / "empty")
