import json
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

import nl3d
from nl3d.embedding.embed import embed
from nl3d.embedding.embedder import TrackletEmbedder
from nl3d.embedding.embeddings import Embeddings
from nl3d.live.embedder import LiveEmbedder
from tests.data.films import film, write_boxes, write_video
from tests.embedding.people import TinyNet

FRAMES = 40


def boxes_of_a_crowd(seed=0, frames=FRAMES, tracks=7, gap=3):
    """Rows of frame, id, left, top, width, height: tracks of any length, some with gaps, some partly outside."""
    generator = np.random.default_rng(seed)
    rows = []
    for track in range(1, tracks + 1):
        first, last = sorted(generator.integers(1, frames + 1, 2).tolist())
        number = first
        while number <= last:
            left, top = generator.integers(-20, 60), generator.integers(-10, 40)
            width, height = generator.integers(4, 40, 2)
            rows.append((number, track * 3, int(left), int(top), int(width), int(height)))
            number += int(generator.integers(1, gap + 1))
    return sorted(rows)


def by_frame(rows):
    frames = {}
    for number, track_id, *box in rows:
        frames.setdefault(number, ([], []))
        frames[number][0].append(box)
        frames[number][1].append(track_id)
    return frames


def play(live, images, rows, last=FRAMES):
    """Update frame by frame; return the closed tracks by name, and the updates."""
    frames, updates = by_frame(rows), []
    for number in range(1, last + 1):
        boxes, ids = frames.get(number, ([], []))
        updates.append(live.update(images[number - 1], boxes, ids))
    updates.append(live.close())
    return {track.name: track for update in updates for track in update.closed}, updates


@pytest.mark.parametrize(("num_frames", "step"), [(4, 1), (3, 2), (8, 4), (1, 1)])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_closed_track_is_what_embed_gives(tmp_path, num_frames, step, order):
    images, rows, network = film(FRAMES), boxes_of_a_crowd(num_frames), TinyNet()
    video, tracks = write_video(tmp_path / "a.mkv", images), write_boxes(tmp_path / "a.txt", rows)
    expected = embed(video, network, tracks=tracks, num_frames=num_frames, frame_step=step)
    embedder = TrackletEmbedder(network, num_frames=num_frames, frame_step=step, batch_size=3)
    live = LiveEmbedder(embedder, order=order, coordinates="ltwh", close_after=4, budget_ms=None, queue_size=1)
    closed, _ = play(live, images if order == "rgb" else images[..., ::-1], rows)
    assert live.counts.skipped_clips == 0
    assert set(closed) >= set(expected.names)
    result = live.stack(list(closed.values())).select(expected.names)
    torch.testing.assert_close(result.embeddings, expected.embeddings, rtol=0, atol=1e-5)
    assert torch.equal(result.frame_ranges, expected.frame_ranges)
    assert torch.equal(result.track_ids, expected.track_ids)
    for key in ("network", "output", "preprocessing", "model"):
        assert result.metadata[key] == expected.metadata[key]
    notes = json.loads(expected.metadata["notes"])
    assert (live.counts.clipped_boxes, live.counts.dropped_boxes) == (notes["clipped_boxes"], notes["dropped_boxes"])
    assert live.counts.tracks_without_vector == len(notes["dropped_tracks"]) == len(closed) - len(expected)


def test_an_open_track_has_the_mean_of_its_full_clips(tmp_path):
    images, network = film(FRAMES), TinyNet()
    live = LiveEmbedder(network, order="rgb", coordinates="xyxy", budget_ms=None)
    box = [4, 4, 30, 40]
    for number in range(1, 11):
        update = live.update(images[number - 1], [box], [5])
        assert update.number == number
        while live.tracks[5].clips < number // 4:
            time.sleep(0.001)
    clips = [live.embedder.processor([i[4:40, 4:30] for i in images[start : start + 4]]) for start in (0, 4)]
    with torch.inference_mode():
        expected = network(torch.stack(clips)).features.mean(0)
    state = live.tracks[5]
    assert (state.clips, state.frames, state.skipped_clips, state.match) == (2, (1, 10), 0, None)
    torch.testing.assert_close(state.embedding, expected)
    assert update.tracks[0].name == "5"
    closed = live.close().closed
    assert [(track.clips, track.frames) for track in closed] == [(3, (1, 10))]
    assert live.close().closed == ()


def test_tracks_end_after_frames_without_a_box_and_their_ids_may_come_back():
    images = film(30)
    live = LiveEmbedder(TinyNet(), order="rgb", coordinates="ltwh", close_after=5, budget_ms=None)
    closed = []
    for number in range(1, 31):
        seen = number <= 3 or 10 <= number <= 12
        update = live.update(images[number - 1], [[0, 0, 9, 9]] if seen else [], [7] if seen else [])
        closed += [(number, track.name, track.track_id, track.frames) for track in update.closed]
        assert set(live.tracks) == ({7} if number <= 8 or 10 <= number <= 17 else set())
    closed += [(31, track.name, track.track_id, track.frames) for track in live.close().closed]  # computed late
    names = {(name, track_id, frames) for _, name, track_id, frames in closed}
    assert names == {("7", 7, (1, 3)), ("7#2", 7, (10, 12))}
    assert live.counts.reopened_tracks == 1
    assert live.counts.tracks == 2


def test_numbers_of_frames_may_skip_and_close_tracks():
    images = film(2)
    with LiveEmbedder(TinyNet(), order="rgb", coordinates="ltwh", close_after=10, budget_ms=None) as live:
        live.update(images[0], [[0, 0, 9, 9]], [1], number=100)
        live.update(images[1], [[0, 0, 9, 9]], [2], number=111)
        assert set(live.tracks) == {2}
        with pytest.raises(ValueError, match="number must be above that of the last frame, 111, got 111"):
            live.update(images[0], number=111)
    assert {track.name for track in live.close().closed} == {"1", "2"}
    with pytest.raises(ValueError, match="update must come before close"):
        live.update(images[0])


def test_a_lost_frame_keeps_tracks_open_and_shows_nothing():
    images = film(12)
    live = LiveEmbedder(TinyNet(), order="rgb", coordinates="ltwh", close_after=3, budget_ms=None)
    for number in range(1, 13):
        live.update(None if 3 <= number <= 10 else images[number - 1], [[0, 0, 9, 9]], [1])
    assert live.counts.lost_boxes == 8
    (track,) = live.close().closed
    assert (track.frames, track.clips) == ((1, 12), 1)


class SlowNet(TinyNet):
    """Waits for a sign before each forward pass."""

    def __init__(self):
        super().__init__()
        self.go = threading.Semaphore(0)

    def forward(self, clips):
        assert self.go.acquire(timeout=60)
        return super().forward(clips)


def test_update_waits_no_longer_than_its_budget_and_long_tracks_lose_clips_first():
    network, images = SlowNet(), film(60)
    embedder = TrackletEmbedder(network, num_frames=1, batch_size=1)
    live = LiveEmbedder(embedder, order="rgb", coordinates="ltwh", budget_ms=5, queue_size=4)
    longest = 0.0
    for number in range(50):  # one track of 50 clips, then three short ones
        start = time.perf_counter()
        live.update(images[number], [[0, 0, 9, 9]], [1])
        longest = max(longest, time.perf_counter() - start)
    for number, track_id in enumerate((2, 3, 4), 50):
        live.update(images[number], [[5, 5, 9, 9]], [track_id])
    counts = live.counts
    assert longest < 1.0
    assert 0.005 <= counts.longest_wait < 1.0
    assert counts.skipped_clips == 48  # the network holds one clip, and four wait
    network.go.release(99)
    closed = {track.name: track for track in live.close().closed}
    assert {name: (track.clips, track.skipped_clips) for name, track in closed.items()} == {
        "1": (2, 48), "2": (1, 0), "3": (1, 0), "4": (1, 0),
    }  # fmt: skip
    assert live.counts.clips == 5


def test_close_may_be_given_a_budget_too():
    network, images = SlowNet(), film(4)
    live = LiveEmbedder(TrackletEmbedder(network, num_frames=1, batch_size=1), order="rgb", coordinates="ltwh")
    for image in images:
        live.update(image, [[0, 0, 9, 9]], [1])
    threading.Timer(0.2, network.go.release, (9,)).start()  # one forward pass cannot be interrupted
    (track,) = live.close(budget_ms=50).closed
    assert track.clips + track.skipped_clips == 4
    assert track.skipped_clips >= 2


def test_matches_improve_and_are_told_once():
    images, network = (
        np.stack([np.full((48, 64, 3), value, np.uint8) for value in (10, 10, 200, 200, 200, 200)]),
        TinyNet(),
    )
    maker = LiveEmbedder(TrackletEmbedder(network, num_frames=2), order="rgb", coordinates="ltwh", budget_ms=None)
    for image in images[[0, 0, 3, 3]]:
        maker.update(image, [[0, 0, 9, 9]], [1 if image[0, 0, 0] == 10 else 2])
    made = maker.stack(maker.close().closed)
    gallery = Embeddings(made.embeddings, names=("dark", "light"), people=("ann", None), metadata=made.metadata)
    live = LiveEmbedder(
        TrackletEmbedder(network, num_frames=2), gallery=gallery, order="rgb", coordinates="ltwh", budget_ms=None
    )
    told = []
    for number, image in enumerate(images, 1):
        live.update(image, [[0, 0, 9, 9]], [1])
        while live.tracks[1].clips < number // 2:
            time.sleep(0.001)
        told += [track.match for track in live.update(number=live._number + 1).matched]
    assert [(match.name, match.person, match.label) for match in told] == [
        ("dark", "ann", "person ann"), ("light", None, "light"),
    ]  # fmt: skip
    (track,) = live.close().closed
    assert track.match.name == "light"
    expected = torch.linalg.vector_norm(track.embedding - gallery.embeddings[1])
    assert track.match.distance == pytest.approx(expected.item(), abs=1e-5)
    assert track.to_dict()["match"]["name"] == "light"


@pytest.mark.parametrize("by_path", [False, True])
def test_a_living_gallery_is_asked_while_it_changes(tmp_path, by_path):
    network = TinyNet()
    options = {"order": "rgb", "coordinates": "ltwh", "budget_ms": None}
    about = TrackletEmbedder(network, num_frames=1).metadata()
    judge = nl3d.Calibration(
        network=about["network"], output=about["output"], metric="euclidean", slope=-1, intercept=4,
        same_above=0.9, different_below=0.1,
    )  # fmt: skip
    path = tmp_path / "people.gallery"
    with nl3d.Gallery(path, create=True) as gallery:
        given = path if by_path else gallery
        live = LiveEmbedder(TrackletEmbedder(network, num_frames=1), gallery=given, calibration=judge, **options)

        def seen(number):
            live.update(film(1)[0], [[0, 0, 9, 9]], [7])
            while live.tracks[7].clips < number:
                time.sleep(0.001)
            return live.tracks[7]

        first = seen(1)
        assert first.match is None  # nothing to be found yet
        far = first.embedding + 3 / len(first.embedding) ** 0.5
        people = Embeddings(
            torch.stack([far, first.embedding]), names=("a", "b"), people=("bob", "ann"), metadata=about
        )
        gallery.add(people.select(["a"]), thumbnails=False)
        match = seen(2).match
        assert (match.person, match.decision) == ("bob", "different")
        assert match.distance == pytest.approx(3, abs=1e-4)
        gallery.add(people.select(["b"]), thumbnails=False)
        match = seen(3).match
        assert (match.person, match.decision) == ("ann", "same")
        assert match.probability == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-4)
        live.close()


def test_galleries_that_do_not_fit_are_refused():
    network = TinyNet()
    options = {"order": "rgb", "coordinates": "ltwh"}
    with pytest.raises(ValueError, match="gallery must hold at least one tracklet, got none"):
        LiveEmbedder(network, gallery=Embeddings(torch.empty(0, 5)), **options)
    with pytest.raises(ValueError, match="must come from the same network"):
        LiveEmbedder(network, gallery=Embeddings(torch.eye(24), metadata={"network": "another"}), **options)
    with pytest.raises(ValueError, match="metric must be one of"):
        LiveEmbedder(network, gallery=Embeddings(torch.eye(24)), metric="manhattan", **options)
    live = LiveEmbedder(network, gallery=Embeddings(torch.eye(7)), budget_ms=None, **options)
    live.update(film(1)[0], [[0, 0, 9, 9]], [1])
    with pytest.raises(ValueError, match="gallery must hold vectors of the network's width, 24, got 7"):
        live.close()


def test_the_order_of_colours_must_be_given_or_known():
    image = film(1)[0]
    with LiveEmbedder(TinyNet(), coordinates="ltwh") as live:
        for frame in (image, torch.from_numpy(image).permute(2, 0, 1)):
            with pytest.raises(ValueError, match="order must be given for frames in arrays: 'bgr' for frames from"):
                live.update(frame, [[0, 0, 9, 9]], [1])
        live.update(Image.fromarray(image), [[0, 0, 9, 9]], [1])
        assert live.counts.frames == 1
    with (
        LiveEmbedder(TinyNet(), order="bgr", coordinates="ltwh") as live,
        pytest.raises(ValueError, match="order must"),
    ):
        live.update(Image.fromarray(image), [[0, 0, 9, 9]], [1])


def test_frames_of_pyav_know_their_order():
    import av

    image = film(1)[0]
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgr0")
    vectors = []
    for given in (frame, Image.fromarray(image)):
        live = LiveEmbedder(TinyNetOfSeed(), coordinates="ltwh", budget_ms=None)
        live.update(given, [[3, 3, 30, 30]], [1])
        vectors.append(live.close().closed[0].embedding)
    torch.testing.assert_close(*vectors)


def TinyNetOfSeed():
    torch.manual_seed(1)
    return TinyNet()


def test_an_error_of_the_network_is_raised_by_the_next_update():
    class Broken(TinyNet):
        def forward(self, clips):
            raise MemoryError("too much")

    live = LiveEmbedder(TrackletEmbedder(Broken(), num_frames=1), order="rgb", coordinates="ltwh")
    image = film(1)[0]
    live.update(image, [[0, 0, 9, 9]], [1])
    live._worker._thread.join(60)
    with pytest.raises(MemoryError, match="too much"):
        live.update(image, [[0, 0, 9, 9]], [1])
    with pytest.raises(MemoryError, match="too much"):
        live.close()


def test_the_network_gets_its_mode_back():
    network = TinyNet().train()
    live = LiveEmbedder(network, order="rgb", coordinates="ltwh")
    assert not network.training
    live.close()
    assert network.training
    assert network.dropout.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "gbr"}, "order must be 'rgb' or 'bgr', got 'gbr'"),
        ({"coordinates": "xywh"}, "coordinates must be 'xyxy' or 'ltwh', got 'xywh'"),
        ({"close_after": 0}, "close_after must be at least 1 frame, got 0"),
        ({"budget_ms": -1}, "budget_ms must be at least 0, or None, got -1"),
        ({"queue_size": 0}, "queue_size must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LiveEmbedder(TinyNet(), **options)


def test_memory_does_not_grow_with_time():
    """The twin of ``python -m tests.bench_live memory``."""
    image = film(1)[0]
    live = LiveEmbedder(TinyNet(), order="rgb", coordinates="ltwh", close_after=2, budget_ms=None)
    held = []
    for number in range(1, 501):
        ids = [number // 20 * 5 + place for place in range(5)]  # five open tracks, new ones every 20 frames
        live.update(image, [[0, 0, 9, 9]] * 5, ids)
        waiting = sum(len(frames) for frames in live._collector._waiting.values())
        held.append(
            (
                len(live._open),
                waiting,
                len(live._collector._seen),
                live._worker._waiting,
                len(live._worker._queue._clips),
            )
        )
    opened, waiting, seen, queued, clips = map(max, zip(*held, strict=True))
    assert opened <= 10
    assert seen <= 10
    assert waiting <= 3 * 10
    assert clips <= 32
    assert queued <= 32 + live.embedder.batch_size
    assert live._worker._closed == []
    live.close()
