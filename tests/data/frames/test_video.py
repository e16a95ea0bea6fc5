import os
import sys

import av
import numpy as np
import pytest

from nl3d.data.frames.images import encode_jpeg
from nl3d.data.frames.video import ImageFrames, open_frames
from tests.data.films import cut_start, damage_packet, film, raw_h264, rotate, wave, write_greys, write_video
from tests.data.pictures import picture, write_jpeg


def test_gives_the_wanted_frames_by_number(tmp_path):
    images = film(9)
    frames = open_frames(write_video(tmp_path / "film.mkv", images))
    read = dict(frames.read({2, 3, 7}))
    assert list(read) == [2, 3, 7]
    for number, image in read.items():
        assert np.array_equal(image.permute(1, 2, 0).numpy(), images[number - 1])


def test_stops_decoding_after_the_last(tmp_path):
    path = write_video(tmp_path / "film.avi", film(30))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # what comes later is not looked at
    assert [number for number, _ in open_frames(path).read({1, 4})] == [1, 4]


def test_refuses_a_video_that_is_too_short(tmp_path):
    frames = open_frames(write_video(tmp_path / "film.avi", film(5)))
    frames.require({5})
    with pytest.raises(ValueError, match=r"film.avi' must have 6 frames, the last with a box, got 5; check that"):
        list(frames.read({6}))
    with pytest.raises(ValueError, match="must have 6 frames"):
        frames.require({6})


def test_refuses_what_is_no_video(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"no video at all" * 99)
    for use in (lambda frames: frames.require({1}), lambda frames: list(frames.read({1}))):
        with pytest.raises(ValueError, match=r"video '.*film.mp4' cannot be read: Invalid data"):
            use(open_frames(path))
    with pytest.raises(FileNotFoundError, match=r"video '.*none.mp4' does not exist"):
        open_frames(tmp_path / "none.mp4")


def test_without_pyav_says_which_extra_to_install(tmp_path, monkeypatch):
    path = write_video(tmp_path / "film.mkv", film(1))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs PyAV; install it with: pip install 'nl3d\[video\]'"):
        open_frames(path)


def names_at(folder, names, **options):
    """Make images whose grey is 5 times their place, and read which one each frame number stands for."""
    for place, name in enumerate(names):
        write_jpeg(folder / name, colour=(place * 5,) * 3)
    frames = open_frames(folder, **options)
    assert isinstance(frames, ImageFrames)
    return {number: round(image.float().mean().item() / 5) for number, image in frames.read(frames.images)}


@pytest.mark.parametrize(
    ("names", "first_frame", "places"),
    [
        (["frame1.jpg", "frame2.jpg", "frame10.jpg"], 1, {1: 0, 2: 1, 10: 2}),
        (["000060.jpg", "000061.png"], 1, {60: 0, 61: 1}),
        (["000060.jpg", "000061.jpg"], None, {1: 0, 2: 1}),
        (["frame_000000.jpg", "frame_000002.jpg"], 0, {1: 0, 3: 1}),
        (["cam2_f7.jpg", "cam2_f9.jpg"], 1, {7: 0, 9: 1}),
        (["12_left.jpg"], 1, {12: 0}),
        (["a.jpg", "b.jpg", "c.jpg"], 1, {1: 0, 2: 1, 3: 2}),
    ],
)
def test_images_are_numbered_by_their_names(tmp_path, names, first_frame, places):
    (tmp_path / "notes.txt").write_text("not a frame")
    assert names_at(tmp_path, names, first_frame=first_frame) == places


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["000003.jpg", "000003_mask.png"], "differ in their number alone, got '000003.jpg' and '000003_mask.png'"),
        (["cam1_01.jpg", "cam2_02.jpg"], "differ in one number, got 'cam1_01.jpg' and 'cam2_02.jpg'; keep one file"),
        (["3.jpg", "003.jpg"], "one file per frame, got '003.jpg' and '3.jpg'"),
        (["3.jpg", "3.png"], "one file per frame, got '3.jpg' and '3.png'"),
        (["a.jpg", "a.png"], "one file per frame, got 'a.jpg' and 'a.png'"),
        (["B.jpg", "a.jpg"], "in one order, got names in upper and lower case"),
        (["first.jpg", "2.jpg"], "differ in their number alone"),
        ([], "must hold images .* got none"),
    ],
)
def test_images_whose_numbers_are_unclear_are_refused(tmp_path, names, message):
    for name in names:
        write_jpeg(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        open_frames(tmp_path)


def test_a_missing_image_is_named_by_its_number(tmp_path):
    for number in (60, 61, 63):
        write_jpeg(tmp_path / f"{number}.jpg")
    with pytest.raises(
        ValueError, match=r"got none numbered 62; its names are numbered from 60 to 63.*--first-frame N"
    ):
        open_frames(tmp_path).require({1, 3})
    with pytest.raises(ValueError, match="got none numbered 1; its names"):
        open_frames(tmp_path, first_frame=1).require({1})


def test_an_image_that_does_not_decode_gives_its_error_on_request(tmp_path):
    write_jpeg(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").write_bytes(b"broken")
    frames = open_frames(tmp_path)
    (_, image), (number, error) = frames.read({1, 2}, skip_unreadable=True)
    assert image.shape == (3, 16, 8)
    assert number == 2
    assert "2.jpg' cannot be read" in str(error)
    with pytest.raises(ValueError, match=r"2.jpg' cannot be read"):
        list(frames.read({2}))


def greys(path, wanted, **options):
    """Grey of each wanted frame, in steps of 4; None where it does not decode."""
    frames = dict(open_frames(path).read(wanted, **options))
    return {n: None if isinstance(f, ValueError) else round(f.float().mean().item() / 4) for n, f in frames.items()}


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("broken", [20, 59])
def test_a_damaged_packet_costs_its_frame_and_moves_no_other(tmp_path, codec, broken):
    path = write_greys(tmp_path / "film.mp4", codec=codec)
    lost = damage_packet(path, broken)
    with pytest.raises(ValueError, match=r"film.mp4' cannot be read after frame \d+: Invalid.*--skip-unreadable"):
        greys(path, range(1, 61))
    found = greys(path, range(1, 61), skip_unreadable=True)
    assert [number for number, grey in found.items() if grey is None] == [lost]
    wrong = {n: g for n, g in found.items() if g is not None and abs(g - n) > 1}
    assert not wrong


@pytest.mark.parametrize(("codec", "name"), [("ffv1", "film.mkv"), ("mpeg4", "film.mkv")])
def test_frames_that_the_container_loses_keep_their_numbers(tmp_path, codec, name):
    """FFmpeg goes on behind a damaged part of Matroska as if the frames in it had never been."""
    path = write_greys(tmp_path / name, codec=codec)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(container.streams.video[0]) if packet.size]
    content = bytearray(path.read_bytes())
    content[places[30] : places[30] + 12] = b"\xff" * 12
    path.write_bytes(content)
    for _ in range(2):  # FFmpeg keeps quiet about what it has said before
        with pytest.raises(ValueError, match=rf"{name}' cannot be read after frame \d+: .*--skip-unreadable"):
            greys(path, range(1, 61))
    open_frames(path).require({60})
    found = greys(path, range(1, 61), skip_unreadable=True)
    assert sorted(found) == list(range(1, 61))
    assert None in found.values()
    assert not {n: g for n, g in found.items() if g is not None and abs(g - n) > 1}
    assert av.logging.get_level() is None


def test_frames_that_a_camera_leaves_out_are_not_lost(tmp_path):
    path = write_greys(tmp_path / "film.mkv", codec="ffv1", step=lambda place: 1 + 3 * (place in (20, 21, 40)))
    assert greys(path, range(1, 61)) == {number: number for number in range(1, 61)}


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_that_ffmpeg_patches_up_count_as_damaged(tmp_path, codec):
    """The decoder raises nothing here, and fills the damaged part from other frames."""
    path = write_video(tmp_path / "film.mp4", film(30), codec)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    position, size = packets[12]
    content = bytearray(path.read_bytes())
    content[position + size // 2 : position + size // 2 + 40] = bytes(range(100, 140))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"film.mp4' cannot be read (at|after) frame \d+: Invalid.*--skip-unreadable"):
        list(open_frames(path).read(range(1, 31)))
    found = dict(open_frames(path).read(range(1, 31), skip_unreadable=True))
    assert sorted(found) == list(range(1, 31))
    assert any(isinstance(frame, ValueError) for frame in found.values())


def test_frames_count_right_with_b_frames_and_a_variable_rate(tmp_path):
    path = write_greys(tmp_path / "film.mp4", codec="libx264", step=lambda place: 1 + place % 5)
    assert greys(path, range(1, 61)) == {number: number for number in range(1, 61)}


def test_frames_that_an_edit_list_cuts_do_not_count(tmp_path):
    path = cut_start(write_greys(tmp_path / "film.mp4", codec="libx264"), 20, tmp_path / "cut.mp4")
    frames = open_frames(path)
    frames.require({40})
    with pytest.raises(ValueError, match="must have 41 frames, the last with a box, got 40"):
        frames.require({41})
    assert greys(path, {1, 40}) == {1: 21, 40: 60}


def test_frames_are_turned_upright(tmp_path):
    path = write_greys(tmp_path / "film.mp4", codec="mpeg4", frames=2)
    rotate(path)
    _, image = next(open_frames(path).read({1}))
    assert image.shape == (3, 64, 48)


def test_a_change_of_resolution_is_scaled_to_the_first(tmp_path):
    path = tmp_path / "film.h264"
    path.write_bytes(raw_h264((48, 64)) + raw_h264((96, 128)))
    images = [image for _, image in open_frames(path).read(range(1, 5))]
    assert [tuple(image.shape) for image in images] == [(3, 48, 64)] * 4
    assert [round(image.float().mean().item() / 48) for image in images] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("boxes.txt", b"1,1,0,0,9,9\n" * 500, "must be a video, got a text file"),
        ("boxes.csv", b"1,1,0,0,9,9\n" * 500, "cannot be read: Invalid data"),
        ("film.mp4", b"", "cannot be read: the file is empty"),
        (
            "film.jpg",
            encode_jpeg(picture((9, 9, 9))),
            "must be a video, got an image; put a video's images into a folder",
        ),
        ("film.wav", wave(), "must have a video stream, got none"),
    ],
)
def test_refuses_other_files_by_what_they_are(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    for use in (lambda frames: frames.require({1}), lambda frames: list(frames.read({1}))):
        with pytest.raises(ValueError, match=f"{name}' {message}"):
            use(open_frames(path))


def test_a_codec_that_is_unknown_is_refused(tmp_path):
    path = write_greys(tmp_path / "film.mp4", codec="mpeg4", frames=2)
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"zzzz").replace(b"esds", b"zsds"))
    with pytest.raises(ValueError, match=r"film.mp4' must be of a codec that FFmpeg decodes here"):
        open_frames(path).require({1})


def test_pixels_are_capped(tmp_path, monkeypatch):
    path = write_greys(tmp_path / "film.mp4", codec="mpeg4", frames=1)
    monkeypatch.setattr("nl3d.data.frames.video.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(ValueError, match=r"must have at most 3071 pixels per frame, got 64 x 48"):
        open_frames(path).require({1})


def test_names_that_are_not_utf_8_or_look_like_addresses(tmp_path):
    film = write_greys(tmp_path / "film.mp4", codec="mpeg4", frames=2).read_bytes()
    for name in (os.fsdecode(b"in\xe9.mp4"), "http:film.mp4", "%d.mp4"):
        path = tmp_path / name
        path.write_bytes(film)
        assert list(greys(path, {2})) == [2]
