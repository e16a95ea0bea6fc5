"""The embedder as the function of Ray Data, Spark and Hugging Face datasets."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import nl3d
from tests.embedding.test_crops import TinyNet_, crops, expected_of

PEOPLE = crops(5, 1, 3)


def encoded(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def files(tmp_path):
    names = []
    for place, frames in enumerate(PEOPLE):
        (tmp_path / str(place)).mkdir()
        names.append([str(tmp_path / str(place) / f"{number}.png") for number in range(len(frames))])
        for name, image in zip(names[-1], frames, strict=True):
            Image.fromarray(image).save(name)
    return names


def object_array(items):
    made = np.empty(len(items), dtype=object)
    made[:] = items
    return made


@pytest.fixture
def embedder():
    return pickle.loads(pickle.dumps(nl3d.TrackletEmbedder(TinyNet_(), batch_size=2)))  # as it goes to an actor


def expected_rows():
    return nl3d.embed(PEOPLE, TinyNet_(), batch_size=2).embeddings.numpy()


@pytest.mark.parametrize("form", ["files", "arrays of files", "arrays", "pil", "bytes", "datasets", "folders"])
def test_mappings_of_columns(embedder, files, form, tmp_path):
    columns = {
        "files": {"frames": files},
        "arrays of files": {"frames": object_array([np.array(names) for names in files])},
        "arrays": {"frames": PEOPLE},
        "pil": {"frames": [[Image.fromarray(image) for image in frames] for frames in PEOPLE]},
        "bytes": {"frames": [[encoded(image) for image in frames] for frames in PEOPLE]},
        "datasets": {"frames": [[{"bytes": None, "path": name} for name in names] for names in files]},
        "folders": {"path": np.array([str(tmp_path / str(place)) for place in range(3)])},
    }[form]
    batch = {**columns, "tracklet": np.array(["a", "b", "c"])}
    made = embedder(batch)
    assert list(made) == [name for name in (*columns, "tracklet", "embedding") if name != "frames"]
    np.testing.assert_array_equal(made["embedding"], expected_rows())
    assert made["tracklet"].tolist() == ["a", "b", "c"]


def test_one_array_of_tracklets_of_one_length(embedder):
    frames = np.stack([np.stack([image[0]] * 4) for image in PEOPLE[:1] * 2])  # (2, 4, H, W, 3)
    made = embedder({"frames": frames})
    assert torch.equal(torch.from_numpy(made["embedding"]), expected_of([list(frames[0]), list(frames[1])]))


def test_data_frames_arrow_tables_and_iterators_of_them(embedder, files):
    pandas = pytest.importorskip("pandas")
    arrow = pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"tracklet": ["a", "b", "c"], "frames": files}, index=[4, 2, 9])
    made = embedder(frame)
    assert (list(made.columns), made.index.tolist()) == (["tracklet", "embedding"], [4, 2, 9])
    np.testing.assert_array_equal(np.stack(made["embedding"]), expected_rows())
    table = arrow.table({"frames": files, "tracklet": ["a", "b", "c"]})
    made = embedder(table)
    assert made.column_names == ["tracklet", "embedding"]
    np.testing.assert_array_equal(np.array(made["embedding"].to_pylist(), np.float32), expected_rows())
    first, second = embedder(iter([frame[:2], frame[2:]]))  # Spark's mapInPandas
    np.testing.assert_allclose(np.stack([*first["embedding"], *second["embedding"]]), expected_rows(), rtol=1e-5)


def test_refuses_columns_that_leave_open_what_a_tracklet_is(embedder, files):
    with pytest.raises(ValueError, match=r"batch must have a column frames, .* got image, tracklet"):
        embedder({"image": files[0], "tracklet": ["a"] * 5})
    with pytest.raises(ValueError, match=r"path must be a folder of one tracklet's images, got '.*0.png'; collect the"):
        embedder({"path": files[0]})
    with pytest.raises(ValueError, match="must hold one sequence of images per tracklet"):
        embedder({"frames": files[0]})
    with pytest.raises(ValueError, match="must hold one sequence of images per tracklet, got one image"):
        embedder({"frames": np.stack([PEOPLE[0][0]] * 2)})
    with pytest.raises(FileNotFoundError, match=r"none.jpg' does not exist"):
        embedder({"frames": [["none.jpg"]]})
