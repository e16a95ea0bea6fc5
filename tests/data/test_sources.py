from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as oracle

from nl3d.data.clips.batches import SourceReport
from nl3d.data.clips.processor import ClipProcessor
from nl3d.data.clips.sampling import consecutive_clips
from nl3d.data.readers.boxes import BoxOptions
from nl3d.data.sources import open_source
from nl3d.data.tracklets import Tracklet
from tests.data.films import film, write_boxes, write_video
from tests.data.pictures import write_jpeg

SIZE = (24, 12)
SPANS = {3: (1, 11), 8: (4, 9), 12: (9, 9)}  # first and last frame


def box_of(track, frame):
    return (3.4 + track + frame, 5.0 + track, 9.6, 21.3)


def resized(image):
    return oracle.resize(torch.from_numpy(image.copy()).permute(2, 0, 1), list(SIZE), antialias=True)


class Clip(NamedTuple):
    row: int
    images: torch.Tensor


def streamed(source, num_frames=4, frame_step=1, parts=None, batch_size=3, **options):
    """Clips, report, and frames passed."""
    parts = parts or [range(len(source.records))]
    report, clips, progress = SourceReport(), [], 0
    batches = source.batches(parts, ClipProcessor(num_frames, frame_step, SIZE), batch_size, **options)
    for batch in DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch):
        report.add(batch.report)
        progress += batch.progress
        assert set(batch.rows) <= set(parts[batch.part])
        assert len(batch.rows) <= batch_size
        clips += [Clip(*clip) for clip in zip(batch.rows, batch.images, strict=True)]
    return clips, report, progress


@pytest.fixture
def video(tmp_path):
    images = film(12)
    rows = [(frame, track, *box_of(track, frame)) for track, (a, b) in SPANS.items() for frame in range(a, b + 1)]
    return images, write_video(tmp_path / "film.mkv", images), write_boxes(tmp_path / "boxes.txt", rows[::-1])


@pytest.mark.parametrize("frame_step", [1, 2])
def test_boxes_in_a_video_become_the_clips_of_their_tracks(video, frame_step):
    images, path, boxes = video
    source = open_source(path, boxes)
    assert [record.name for record in source.records] == ["3", "8", "12"]
    clips, report, progress = streamed(source, frame_step=frame_step)
    assert report == SourceReport({0: (1, 11), 1: (4, 9), 2: (9, 9)})
    for index, (track, (first, last)) in enumerate(SPANS.items()):
        crops = []
        for frame in range(first, last + 1):
            left, top, width, height = box_of(track, frame)
            rows, columns = slice(round(top), round(top + height)), slice(round(left), round(left + width))
            crops.append(resized(images[frame - 1][rows, columns]))
        expected = [
            torch.stack([crops[place] for place in clip]) for clip in consecutive_clips(len(crops), 4, frame_step)
        ]
        found = [clip.images for clip in clips if clip.row == index]
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
    assert progress == 11


def test_boxes_outside_the_frame_are_clipped_dropped_and_counted(tmp_path):
    images = film(4)  # 48 high, 64 wide
    rows = [(1, 5, -6, 10, 20, 20), (2, 5, 70, 10, 20, 20), (3, 5, 10, 10, 20, 20), (4, 5, 0, -30, 9, 30)]
    rows.append((2, 6, 0, 48, 5, 5))
    source = open_source(write_video(tmp_path / "film.mkv", images), write_boxes(tmp_path / "boxes.txt", rows))
    clips, report, _ = streamed(source, num_frames=2)
    assert report == SourceReport({0: (1, 3)}, clipped_boxes=1, dropped_boxes=3)
    assert len(clips) == 1
    assert torch.equal(clips[0].images[0], resized(images[0][10:30, 0:14]))
    assert torch.equal(clips[0].images[1], resized(images[2][10:30, 10:30]))
    assert list(source.middle_frames(["5", "6"])) == ["5"]  # the other's middle lies outside


def test_a_tail_ends_even_if_its_last_box_is_outside(tmp_path):
    rows = [(1, 1, 0, 0, 9, 9), (2, 1, 99, 0, 9, 9)]
    source = open_source(write_video(tmp_path / "film.mkv", film(2)), write_boxes(tmp_path / "boxes.txt", rows))
    clips, report, _ = streamed(source, num_frames=3)
    assert len(clips) == 1
    assert report.ranges == {0: (1, 1)}


def test_corners_in_place_of_sizes_are_refused_unless_the_format_is_named(tmp_path):
    video = write_video(tmp_path / "film.mkv", film(3))  # 48 high, 64 wide
    boxes = write_boxes(tmp_path / "boxes.txt", [(1, 1, 30, 20, 50, 45), (2, 1, 34, 20, 54, 45), (3, 1, 2, 2, 20, 40)])
    with pytest.raises(ValueError, match=r"boxes.txt' must give .*, but 2 of 3 reach outside the frame of 64 x 48"):
        open_source(video, boxes)
    assert len(open_source(video, boxes, boxes=BoxOptions(format="mot")).records) == 1


def test_boxes_as_shares_of_the_frame(tmp_path):
    images = film(2)  # 48 high, 64 wide
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "film_2.txt").write_text("0 0.5 0.5 0.25 0.5 7\n")
    source = open_source(write_video(tmp_path / "film.mkv", images), labels)
    clips, report, _ = streamed(source, num_frames=1)
    assert report.ranges == {0: (2, 2)}
    assert torch.equal(clips[0].images[0], resized(images[1][12:36, 24:40]))


def test_boxes_and_images_that_count_from_zero(tmp_path):
    for number in range(3):
        write_jpeg(tmp_path / "film" / f"frame_{number:06d}.jpg", colour=(number * 50,) * 3, size=(48, 64))
    boxes = write_boxes(tmp_path / "boxes.txt", [(0, 1, 2, 2, 20, 40), (2, 2, 2, 2, 20, 40)])
    source = open_source(tmp_path / "film", boxes, boxes=BoxOptions(first_frame=0))
    clips, report, _ = streamed(source, num_frames=1)
    assert [round(clip.images.float().mean().item() / 50) for clip in clips] == [0, 2]
    assert report.ranges == {0: (1, 1), 1: (3, 3)}


def test_middle_frames_of_a_video_are_not_resized(video):
    images, path, boxes = video
    found = open_source(path, boxes).middle_frames(["8", "3"])
    left, top, width, height = box_of(8, 7)
    crop = images[6][round(top) : round(top + height), round(left) : round(left + width)]
    assert np.array_equal(found["8"].permute(1, 2, 0).numpy(), crop)
    assert set(found) == {"3", "8"}


@pytest.mark.parametrize("frame_step", [1, 3])
def test_folders_become_tracklets_in_natural_order(tmp_path, frame_step):
    for name, count in (("t10", 5), ("t2", 9), (".hidden", 1)):
        for number in range(count):
            write_jpeg(tmp_path / name / f"{number}.jpg", colour=(number * 25, 90, 90), size=(30, 20))
    source = open_source(tmp_path)
    assert [(record.name, record.track_id) for record in source.records] == [("t2", 1), ("t10", 2)]
    clips, _, progress = streamed(source, frame_step=frame_step)
    for index, count in enumerate((9, 5)):
        reds = [clip.images[:, 0].float().mean((1, 2)) / 25 for clip in clips if clip.row == index]
        assert [red.round().int().tolist() for red in reds] == consecutive_clips(count, 4, frame_step)
    assert progress == 14
    assert clips[0].images.shape == (4, 3, *SIZE)
    assert clips[0].images.dtype == torch.uint8
    assert source.middle_frames(["t10"])["t10"].shape == (3, 30, 20)


def test_track_ids_are_the_names_where_these_are_numbers():
    frames = torch.zeros(1, 3, 8, 4, dtype=torch.uint8)
    named = open_source([Tracklet(frames, name="0021"), Tracklet(frames, name="7")])
    assert [record.track_id for record in named.records] == [21, 7]
    clashing = open_source([Tracklet(frames, name="07"), Tracklet(frames, name="7")])
    assert [record.track_id for record in clashing.records] == [1, 2]
    unnamed = open_source([Tracklet(frames, pid=4, camid=2), Tracklet(frames)])
    assert [record[:4] for record in unnamed.records] == [("1", 1, 4, 2), ("2", 2, None, None)]


def test_frames_of_a_tracklet_may_differ_in_size(tmp_path):
    write_jpeg(tmp_path / "a" / "1.jpg", size=(40, 20))
    write_jpeg(tmp_path / "a" / "2.jpg", size=(16, 16))
    (clip,), *_ = streamed(open_source(tmp_path), num_frames=2)
    assert clip.images.shape == (2, 3, *SIZE)


def test_refuses_what_is_no_source(tmp_path):
    frames = torch.zeros(1, 3, 8, 4, dtype=torch.uint8)
    with pytest.raises(FileNotFoundError, match=r"source '.*nothing' does not exist"):
        open_source(tmp_path / "nothing")
    with pytest.raises(ValueError, match="tracks must be given for the video"):
        open_source(write_video(tmp_path / "film.mkv", film(1)))
    with pytest.raises(ValueError, match="tracks must be left out for tracklets"):
        open_source([Tracklet(frames)], tmp_path / "boxes.txt")
    with pytest.raises(ValueError, match="at least one tracklet, got none"):
        open_source([])
    with pytest.raises(ValueError, match="names of their own, got 'a' more than once"):
        open_source([Tracklet(frames, name="a"), Tracklet(frames, name="a")])


def test_refuses_folders_without_tracklets_or_frames(tmp_path):
    with pytest.raises(ValueError, match=r"must hold one folder per tracklet, tracklet/.*, got none"):
        open_source(tmp_path)
    write_jpeg(tmp_path / "1.jpg")
    with pytest.raises(ValueError, match=r"image .*1.jpg' must .*; give tracks if these are the frames of a video"):
        open_source(tmp_path)
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"tracklet folder '.*empty' must hold images"):
        open_source(tmp_path)


def test_an_unreadable_image_is_named(tmp_path):
    write_jpeg(tmp_path / "a" / "1.jpg", size=(64, 64))
    path = tmp_path / "a" / "1.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"image '.*1.jpg' cannot be read"):
        streamed(open_source(tmp_path))


def test_a_table_gives_the_tracklets_that_it_lists(tmp_path):
    for number in range(3):
        write_jpeg(tmp_path / "a" / f"{number}.jpg", colour=(9 * number, 5, 5), size=(24, 12))
    table = tmp_path / "people.csv"
    table.write_text("path,tracklet,pid,camid\na/0.jpg,x,7,2\na/2.jpg,y,-1,3\na/1.jpg,x,7,2\n")
    source = open_source(table)
    assert [record[:4] for record in source.records] == [("x", 1, 7, 2), ("y", 2, -1, 3)]
    assert (source.path, source.total_frames) == (table.resolve(), 3)
    assert open_source(source) is source
    with pytest.raises(ValueError, match="tracks must be left out for the table"):
        open_source(table, tmp_path / "boxes.txt")
    table.write_text("path\na/7.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"a/7.jpg' does not exist"):
        open_source(table)
    assert len(open_source(table, check_files=False).records) == 1


class Frame:
    """A frame of one grey value, or one that does not decode."""

    def __init__(self, value):
        self.value = value

    def read(self):
        if self.value is None:
            raise ValueError("frame is broken")
        return torch.full((3, *SIZE), self.value, dtype=torch.uint8)


def test_unreadable_frames_are_replaced_by_the_nearest_of_their_clip():
    values = [None, 1, 2, None, None, 5, None, None, None, None, None, None, 12]
    source = open_source([Tracklet([Frame(value) for value in values]), Tracklet([Frame(None)]), Tracklet([Frame(3)])])
    clips, report, progress = streamed(source, skip_unreadable=True)
    assert [clip.images[:, 0, 0, 0].tolist() for clip in clips] == [[1, 1, 2, 2], [5, 5, 5, 5], [12] * 4, [3] * 4]
    assert [clip.row for clip in clips] == [0, 0, 0, 2]
    assert progress == source.total_frames
    assert report.unreadable == [(0, "frame is broken")] * 9 + [(1, "frame is broken")]
    with pytest.raises(ValueError, match="frame is broken"):
        streamed(source)


def test_parts_come_in_the_order_asked_for():
    source = open_source([Tracklet([Frame(value)] * 3) for value in (10, 20, 30)])
    clips, _, progress = streamed(source, num_frames=2, parts=[range(2, 3), range(1)])
    assert [(clip.row, int(clip.images[0, 0, 0, 0])) for clip in clips] == [(2, 30), (2, 30), (0, 10), (0, 10)]
    assert progress == 6
