"""``nl3d.embed`` from frames in memory, boxes in memory, and a network by default."""

import numpy as np
import pytest
import torch
from PIL import Image

import nl3d
from nl3d.data.tracklets import Tracklet
from nl3d.embedding import embed as module
from tests.data.films import film, write_boxes, write_video
from tests.embedding.people import TinyNet

SIZES = [(30, 14), (24, 12), (41, 19)]


def crops(*lengths):
    """Arrays ``(H, W, 3)`` of several sizes, one list per tracklet."""
    draw = np.random.default_rng(0)
    return [
        [draw.integers(0, 256, (*SIZES[(frame + place) % 3], 3), dtype=np.uint8) for frame in range(length)]
        for place, length in enumerate(lengths)
    ]


def expected_of(people):
    tracklets = [Tracklet([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in frames]) for frames in people]
    return nl3d.embed(tracklets, TinyNet_()).embeddings


def TinyNet_():
    torch.manual_seed(0)
    return TinyNet()


@pytest.mark.parametrize("form", ["arrays", "pil", "tensors", "generators", "bgr", "files", "tracklets", "one by one"])
def test_every_form_of_crops_gives_the_same(form, tmp_path):
    people = crops(9, 1, 4)
    forms = {
        "arrays": lambda: people,
        "pil": lambda: tuple(tuple(Image.fromarray(image) for image in frames) for frames in people),
        "tensors": lambda: [[torch.from_numpy(image).permute(2, 0, 1) for image in frames] for frames in people],
        "generators": lambda: ((image for image in frames) for frames in people),
        "bgr": lambda: [[image[..., ::-1] for image in frames] for frames in people],
        "tracklets": lambda: iter([Tracklet(frames) for frames in people]),
        "files": lambda: [
            [_saved(tmp_path / f"{place}_{number}.png", image) for number, image in enumerate(frames)]
            for place, frames in enumerate(people)
        ],
        "one by one": lambda: [people[0], Tracklet(people[1]), iter(people[2])],
    }
    result = nl3d.embed(forms[form](), TinyNet_(), order="bgr" if form == "bgr" else "rgb")
    assert torch.equal(result.embeddings, expected_of(people))
    assert (result.names, result.frame_ranges.tolist()) == (("1", "2", "3"), [[1, 9], [1, 1], [1, 4]])


def _saved(path, image):
    Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_arrays_of_one_size(order):
    frames = np.stack(crops(12)[0][::3])  # (4, H, W, 3)
    given = frames if order == "rgb" else frames[..., ::-1]
    expected = expected_of([list(frames)])
    tensor = torch.from_numpy(np.ascontiguousarray(given)).permute(0, 3, 1, 2)
    for source in (given[None], [given], tensor[None], [tensor], [Tracklet(given)]):
        assert torch.equal(nl3d.embed(source, TinyNet_(), order=order).embeddings, expected)
    apart = nl3d.embed(given[:, None], TinyNet_(), order=order).embeddings
    assert torch.equal(apart, expected_of([[frame] for frame in frames]))
    image = given[0] if order == "bgr" else Image.fromarray(given[0])  # one image is one tracklet
    assert torch.equal(nl3d.embed(image, TinyNet_(), order=order).embeddings[0], apart[0])


def test_a_generator_is_read_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "BATCHES_PER_PART", 2)
    people, alive, most = crops(*[3] * 21), set(), [0]

    class Frames(list):
        def __init__(self, frames):
            super().__init__(frames)
            alive.add(id(self))
            most[0] = max(most[0], len(alive))

        def __del__(self):
            alive.discard(id(self))

    result = nl3d.embed((Tracklet(Frames(frames), name=f"9{n}") for n, frames in enumerate(people)), TinyNet_(),
                        batch_size=2)  # fmt: skip
    torch.testing.assert_close(result.embeddings, expected_of(people), rtol=1e-5, atol=1e-6)
    assert result.names == tuple(f"9{number}" for number in range(21))
    assert result.track_ids.tolist() == [int(name) for name in result.names]
    assert most[0] < 10
    with pytest.raises(ValueError, match="have names of their own, got 'a' more than once"):
        nl3d.embed((Tracklet(frames, name="a") for frames in people), TinyNet_(), batch_size=2)


def test_the_network_is_the_bundled_one_if_left_out():
    people = crops(5, 2)
    result = nl3d.embed(people)
    named = nl3d.embed(people, "resnet3d18_nl/bundled")
    given = nl3d.embed(people, nl3d.resnet3d18_nl("bundled"))
    assert torch.equal(result.embeddings, given.embeddings)
    assert torch.equal(named.embeddings, given.embeddings)
    assert result.metadata == named.metadata == given.metadata
    assert (result.metadata["model"], result.metadata["weights"]) == ("resnet3d18_nl", "bundled")


IMAGE = crops(1)[0][0]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([IMAGE, IMAGE], ValueError, r"one sequence of images per tracklet, got one image \(ndarray\) as item 1; pass "
         r"\[crops\] if they are one tracklet, or \[\[crop\] for crop in crops\] if each is a tracklet of its own"),
        ([Image.fromarray(IMAGE)], ValueError, r"got one image \(Image\) as item 1; pass \[crops\]"),
        (iter([[IMAGE], IMAGE]), ValueError, r"got one image \(ndarray\) as item 2; pass \[crops\]"),
        (["a.jpg", "b.jpg"], ValueError, r"got one image \(str\) as item 1"),
        (np.stack([IMAGE] * 3), ValueError, r"got \(3, 30, 14, 3\); pass crops\[None\] if all images are one tracklet, "
         r"or crops\[:, None\] if each is"),
        (IMAGE[..., 0], ValueError, r"crops must be one image, or .* got \(30, 14\)"),
        ([[IMAGE.astype(np.float32)]], TypeError, "must hold uint8 values from 0 to 255, got torch.float32"),
        ([[IMAGE], [3]], TypeError, "frame must be a file name, an image or have a read"),
        ([[IMAGE], 3], TypeError, "crops must hold images or tracklets, got int as item 2"),
        (7, TypeError, "crops must be images or tracklets, got int"),
        ([[IMAGE], []], ValueError, "tracklet 2 of crops: frames must hold at least one frame"),
        ([], ValueError, "source must hold at least one tracklet, got none"),
        (iter([]), ValueError, "source must hold at least one tracklet, got none"),
    ],
)  # fmt: skip
def test_refuses_what_is_open_or_wrong(source, error, message):
    with pytest.raises(error, match=message) as refusal:
        nl3d.embed(source, TinyNet())
    assert "\n" not in str(refusal.value)


def test_refuses_an_order_that_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="order must be 'rgb' or 'bgr', got 'gbr'"):
        nl3d.embed([[IMAGE]], TinyNet(), order="gbr")
    with pytest.raises(ValueError, match="order must be 'rgb' for files, which know their own, got 'bgr'"):
        nl3d.embed(tmp_path, TinyNet(), order="bgr")
    with pytest.raises(ValueError, match="tracklet 1 of crops: order must be 'rgb' for frames that know their own"):
        nl3d.embed([[Image.fromarray(IMAGE)]], TinyNet(), order="bgr")
    with pytest.raises(ValueError, match="tracks must be left out for tracklets"):
        nl3d.embed([[IMAGE]], TinyNet(), tracks=np.ones((1, 6)))
    with pytest.raises(TypeError, match="model must be a network or the name of one, got int"):
        nl3d.embed([[IMAGE]], 3)


ROWS = [(frame, track, 3 * track, 5, 9 + frame, 21) for track in range(3) for frame in range(1 + track, 9)]


def test_boxes_in_memory_are_those_of_a_file(tmp_path):
    pandas = pytest.importorskip("pandas")
    video = write_video(tmp_path / "film.mkv", film(9))
    expected = nl3d.embed(video, TinyNet_(), tracks=write_boxes(tmp_path / "boxes.txt", ROWS))
    frame = pandas.DataFrame(ROWS, columns=["frame", "id", "left", "top", "width", "height"])
    official = frame.rename(columns={"left": "bb_left", "top": "bb_top", "width": "bb_width", "height": "bb_height"})
    for tracks in (
        np.array(ROWS), np.array(ROWS, dtype=np.float32), torch.tensor(ROWS), ROWS, frame, official.iloc[:, ::-1],
        pandas.DataFrame(ROWS), {name: frame[name].tolist() for name in frame},
    ):  # fmt: skip
        found = nl3d.embed(video, TinyNet_(), tracks=tracks)
        assert torch.equal(found.embeddings, expected.embeddings)
        assert torch.equal(found.frame_ranges, expected.frame_ranges)
        assert (found.names, found.metadata["tracks"]) == (expected.names, "")


def test_boxes_in_memory_are_checked_like_those_of_a_file():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=["frame", "id", "left", "top", "width", "height"])
    classes = [("pedestrian", "car")[row[1] % 2] for row in ROWS]
    kept = nl3d.read_boxes(frame.assign(**{"class": classes}), nl3d.BoxOptions(classes=("pedestrian",)))
    assert [track.track_id for track in kept.tracks] == [0, 2]
    for tracks, message in [
        (
            frame.drop(columns="left"),
            "must have the columns frame, id, left, .* but lack left, got frame, id, top",
        ),
        (np.ones((3, 5)), r"tracks must be numbers \(n, 6\) or wider, .* got float64 \(3, 5\)"),
        (frame.assign(width=0), "in memory, line 1: width and height must be above 0"),
        (frame.assign(top=float("nan")), "in memory, line 1: .* must be finite numbers"),
        (np.array([*ROWS, ROWS[0]]), "line 22: a track must have one box per frame"),
        (np.array(ROWS) * [1, 1, 0.01, 0.01, 0.01, 0.01], "must give boxes in pixels, got none above 2"),
        (np.array(ROWS) - [1, 0, 0, 0, 0, 0], "frame must be a whole number from 1 on"),
    ]:
        with pytest.raises(ValueError, match=message):
            nl3d.read_boxes(tracks)
    with pytest.raises(ValueError, match="tracks must be a file for the format 'cvat', got boxes in memory"):
        nl3d.read_boxes(np.array(ROWS), nl3d.BoxOptions(format="cvat"))


def test_tables_in_memory_and_in_parquet_are_those_of_a_file(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    rows = []
    for place, frames in enumerate(crops(3, 2, 4)):
        for number, image in enumerate(frames):
            path = _saved(tmp_path / f"{place}_{number}.png", image)
            rows.append((str(path), f"t{place}", ["ann", None, -1.0][place], 2))
    frame = pandas.DataFrame(rows, columns=["path", "tracklet", "pid", "camid"])
    frame.to_csv(tmp_path / "people.csv", index=False)
    frame["pid"] = frame["pid"].astype("string")
    frame.to_parquet(tmp_path / "people.parquet")
    expected = nl3d.embed(tmp_path / "people.csv", TinyNet_())
    assert expected.people == ("ann", None, "-1")
    for source in (frame, tmp_path / "people.parquet"):
        found = nl3d.embed(source, TinyNet_())
        assert torch.equal(found.embeddings, expected.embeddings)
        assert (found.names, found.people, found.cameras) == (expected.names, expected.people, expected.cameras)
    with pytest.raises(ValueError, match=r"manifest must have the columns path in its first line, got 'tracklet'"):
        nl3d.embed(frame[["tracklet"]], TinyNet())
    with pytest.raises(ValueError, match=r"manifest, row 2: pid: label must be a whole number or a name, got '1.5'"):
        nl3d.embed(frame.assign(pid=[1, 1.5, *[1] * 7]), TinyNet())
    (tmp_path / "people.parquet").write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"manifest '.*people.parquet' cannot be read as Parquet"):
        nl3d.embed(tmp_path / "people.parquet", TinyNet())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_in_half_precision(dtype):
    people = crops(9, 4)
    exact = nl3d.embed(people, TinyNet_(), output_layer="embedding")
    half = nl3d.embed(people, TinyNet_().to(dtype), output_layer="embedding")
    assert half.embeddings.dtype == torch.float32
    assert not torch.equal(half.embeddings, exact.embeddings)
    torch.testing.assert_close(half.embeddings, exact.embeddings, rtol=0.03, atol=0.03)
    assert half.metadata["network"] != exact.metadata["network"]


def test_the_bundled_network_in_bfloat16_finds_the_same():
    people = crops(8, 8, 8, 8)
    exact = nl3d.embed(people, nl3d.resnet3d18_nl("bundled"))
    half = nl3d.embed(people, nl3d.resnet3d18_nl("bundled").bfloat16())
    assert torch.nn.functional.cosine_similarity(exact.embeddings, half.embeddings).min() > 0.99


def test_inflated_networks_have_a_processor():
    model = nl3d.inflated("test_convnext", num_classes=5)
    frames = crops(9)[0]
    assert model.processor == nl3d.ClipProcessor.of(model)
    assert model.eval()(model.processor(frames[:4])[None]).shape == (1, 5)
    assert "processor" not in "".join(model.state_dict())
