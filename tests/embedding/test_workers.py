"""Decoding by worker processes: the same vectors, the same errors, and nothing left behind."""

import gc
import json
import multiprocessing
import os
import pickle
import signal

import pytest
import torch
from torch.utils.data import DataLoader

import nl3d
from nl3d.data.clips.processor import ClipProcessor
from nl3d.data.sources import open_source
from nl3d.data.tracklets import Tracklet
from nl3d.data.video_source import VideoSource, _VideoBatches
from nl3d.embedding import embedder
from nl3d.embedding.embedder import TrackletEmbedder
from tests.data.films import film, write_boxes, write_video
from tests.data.pictures import write_jpeg
from tests.embedding.people import TinyNet


@pytest.fixture
def folder(tmp_path):
    for place in range(9):
        for frame in range(1 + place * 4 % 11):
            colour = (25 * place, 20 * frame, 99)
            write_jpeg(tmp_path / "people" / f"{place}" / f"{frame}.jpg", colour=colour, size=(24 + 3 * frame, 15))
    return tmp_path / "people"


@pytest.fixture
def video(tmp_path):
    rows = [(frame, track, 3 * track, 5, 9 + frame, 21) for track in range(5) for frame in range(1 + track, 14)]
    rows.append((6, 7, 90, 0, 5, 5))  # outside
    return write_video(tmp_path / "film.mkv", film(14)), write_boxes(tmp_path / "boxes.txt", rows)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than cores
def test_any_number_of_workers_gives_the_same(folder, video):
    model = TinyNet()
    path, boxes = video
    for source, options in ((folder, {}), (path, {"tracks": boxes})):
        expected = nl3d.embed(source, model, batch_size=2, workers=0, **options)
        for workers in (1, 3):
            found = nl3d.embed(source, model, batch_size=2, workers=workers, **options)
            assert torch.equal(found.embeddings, expected.embeddings)
            assert torch.equal(found.frame_ranges, expected.frame_ranges)
            assert (found.names, found.metadata) == (expected.names, expected.metadata)
    assert json.loads(expected.metadata["notes"])["dropped_tracks"] == ["7"]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_frame_is_one_sentence_from_anywhere(folder, workers):
    (folder / "5" / "3.jpg").write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"image '.*3.jpg' cannot be read") as caught:
        nl3d.embed(folder, TinyNet(), batch_size=1, workers=workers)
    assert str(caught.value).startswith("image '")
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()
    (folder / "5" / "3.jpg").unlink()
    source = open_source(folder)
    (folder / "8" / "0.jpg").unlink()
    with pytest.raises(FileNotFoundError) as missing:
        nl3d.embed(source, TinyNet(), batch_size=1, workers=workers)
    assert str(missing.value) == f"image '{folder / '8' / '0.jpg'}' does not exist"


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_frames_are_counted_wherever_they_are_skipped(folder, workers):
    for name in ("1/0", "1/2", "3/0", "3/1", "8/9"):  # tracklet 3 has no other
        (folder / f"{name}.jpg").write_bytes(b"noise")
    result = nl3d.embed(folder, TinyNet(), batch_size=2, workers=workers, skip_unreadable=True)
    notes = json.loads(result.metadata["notes"])
    assert notes["unreadable_frames"] == 5
    assert notes["dropped_tracks"] == ["3"]


def test_an_interrupt_leaves_no_worker(folder):
    class Interrupted(TinyNet):
        def forward(self, clips):
            assert multiprocessing.active_children()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        nl3d.embed(folder, Interrupted(), batch_size=1, workers=2)
    assert not multiprocessing.active_children()  # even while somebody holds the traceback
    assert caught.tb


class Grey:
    """A frame that a worker reads, unlike one in memory."""

    def read(self):
        return torch.zeros(3, 8, 4, dtype=torch.uint8)


class Deadly:
    def read(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_named():
    people = [Tracklet([Grey()]), Tracklet([Deadly()])]
    with pytest.raises(ChildProcessError, match=r"a worker that decodes frames was killed .* with fewer workers"):
        nl3d.embed(people, TinyNet(), batch_size=1, workers=1)


class Owned:
    """In a cycle, so that only the garbage collector frees it; may be freed by its own process alone."""

    def __init__(self, freed):
        self.itself, self.freed, self.owner = self, freed, os.getpid()

    def __del__(self):
        if os.getpid() != self.owner:
            self.freed.touch()


class Collecting:
    def read(self):
        gc.collect()
        return torch.zeros(3, 24, 12, dtype=torch.uint8)


def test_workers_do_not_free_what_belongs_to_this_process(tmp_path):
    gc.disable()
    Owned(tmp_path / "freed")  # FFmpeg's frames would wait forever for threads that the worker does not have
    try:
        nl3d.embed([Tracklet([Collecting()] * 3)], TinyNet(), workers=1)
    finally:
        gc.enable()
    assert not (tmp_path / "freed").exists()
    assert gc.get_freeze_count() == 0


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_several_videos_are_decoded_at_once_and_in_the_same_batches(tmp_path, video):
    path, boxes = video
    other = (
        write_video(tmp_path / "other.mkv", film(9)),
        write_boxes(tmp_path / "other.txt", [(frame, 2, 5, 5, 9, 20) for frame in range(1, 10)]),
    )
    videos = [open_source(path, boxes), open_source(*other), open_source(path, boxes)]
    batches = {}
    for workers in (0, 2, 3):
        loader = DataLoader(
            _VideoBatches(videos, ClipProcessor(2, 1, (24, 12)), 3),
            batch_size=None,
            num_workers=workers,
            collate_fn=lambda batch: batch,
        )
        kept = [batch for batch in loader if batch.rows]
        batches[workers] = sorted(kept, key=lambda batch: (batch.rows[0] > 5) + (batch.rows[0] > 6))
    records = [record for video in videos for record in video.records]
    assert {row for batch in batches[0] for row in batch.rows} == set(range(len(records))) - {5, 12}
    for workers in (2, 3):
        for one, two in zip(batches[0], batches[workers], strict=True):
            assert one.rows == two.rows
            assert torch.equal(one.images, two.images)
            assert one.report == two.report


def test_sources_can_be_sent_to_workers_that_are_not_forked(folder, video):
    path, boxes = video
    for source in (open_source(folder), open_source(path, boxes)):
        sent = pickle.loads(pickle.dumps(source))
        assert sent.records == source.records
    assert isinstance(sent, VideoSource)
    assert [number for number, _ in sent.frames.read({2, 3})] == [2, 3]


def test_by_default_work_is_shared_with_spare_cores_where_it_is_worth_it(folder, monkeypatch):
    monkeypatch.setattr(embedder, "spare_cores", lambda: 3)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "fork")

    def workers(source, **options):
        opened = open_source(source)
        chosen = TrackletEmbedder(TinyNet(), **options)
        return chosen.count_workers(opened)

    assert workers(folder) == 0  # a few batches
    assert workers(folder, batch_size=1) == 3
    assert workers(folder, workers=2) == 2
    assert workers([Tracklet(torch.zeros(999, 3, 8, 4, dtype=torch.uint8))]) == 0  # in memory
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    assert workers(folder, batch_size=1) == 0
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        TrackletEmbedder(TinyNet(), workers=-1)


def test_spare_cores_are_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    assert embedder.spare_cores() == 15
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert embedder.spare_cores() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert embedder.spare_cores() == 0
