import json

import pytest
import torch
from PIL import Image

import nl3d
from nl3d.data.tracklets import Tracklet
from nl3d.retrieval.search import nearest as module
from tests.data.pictures import write_jpeg
from tests.embedding.people import TinyNet, embeddings


def walked(query, gallery, metric):
    """Distances one by one."""
    if metric == "euclidean":
        return [[float((one - other).norm()) for other in gallery] for one in query]
    return [[1 - float(one @ other / one.norm() / other.norm()) for other in gallery] for one in query]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("top", [1, 3, 50])
@pytest.mark.parametrize("at_once", [1, 2, 1024])
def test_gives_the_nearest_first(metric, top, at_once, monkeypatch):
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", at_once)
    query, gallery = embeddings(torch.randn(5, 4)), embeddings(torch.randn(7, 4))
    ranking = nl3d.rank(query, gallery, top=top, metric=metric)
    distances = walked(query.embeddings.double(), gallery.embeddings.double(), metric)
    for row in range(5):
        expected = sorted(range(7), key=lambda place, row=row: distances[row][place])[:top]
        assert ranking.indices[row].tolist() == expected
        assert ranking.distances[row].tolist() == pytest.approx([distances[row][place] for place in expected], abs=1e-5)


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("at_once", [2, 1024])
def test_a_set_ranked_against_itself_leaves_out_the_query(tmp_path, monkeypatch, from_file, at_once):
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", at_once)
    people = embeddings(torch.tensor([[0.0], [1.0], [5.0], [5.0]]))
    path = tmp_path / "people.safetensors"
    people.save(path)
    (tmp_path / "link.safetensors").symlink_to(path)
    query, gallery = (path, str(tmp_path / "link.safetensors")) if from_file else (people, people)
    ranking = nl3d.rank(query, gallery)
    assert ranking.indices.tolist()[0] == [1, 2, 3] or ranking.indices.tolist()[0] == [1, 3, 2]
    assert [row[0] for row in ranking.indices.tolist()] == [1, 0, 3, 2]
    assert nl3d.rank(people, embeddings(people.embeddings), top=1).indices[1].tolist() == [1]  # another set


def test_only_the_named_queries():
    people = embeddings(torch.tensor([[0.0], [1.0], [5.0]]))
    ranking = nl3d.rank(people, people, names=["t2"])
    assert [(ranked.name, [found.name for found in ranked.found]) for ranked in ranking] == [("t2", ["t1", "t0"])]
    with pytest.raises(ValueError, match="unknown tracklet 'x'"):
        nl3d.rank(people, people, names=["x"])


def test_reads_as_a_table_and_as_json():
    query = embeddings([[0.0], [4.0]], pids=torch.tensor([1, 2]))
    gallery = embeddings([[1.0], [3.0]], pids=torch.tensor([1, 1]), names=("left", "right"))
    ranking = nl3d.rank(query, gallery)
    assert str(ranking[1]).splitlines() == [
        "query t1 (frames 1-11)",
        "  rank  tracklet  distance  frames",
        "     1  right       1.0000  1-11  other",
        "     2  left        3.0000  1-10  other",
    ]
    assert ranking.table() == f"{ranking[0]}\n\n{ranking[1]}\n"
    plain = json.loads(json.dumps(ranking.to_dict()))
    assert plain["rankings"][0]["found"][0] == {
        "rank": 1, "name": "left", "track_id": 1, "frames": [1, 10], "distance": 1.0, "match": True,
    }  # fmt: skip
    assert "match" not in nl3d.rank(embeddings([[0.0]]), gallery).to_dict()["rankings"][0]["found"][0]
    assert len(ranking) == 2
    with pytest.raises(IndexError, match="row must be below the 2 queries, got 2"):
        ranking[2]


@pytest.mark.parametrize(
    ("query", "gallery", "options", "message"),
    [
        ([[0.0]], [[0.0]], {"top": 0}, "top must be at least 1, got 0"),
        ([[0.0]], [[0.0]], {"metric": "city"}, "metric must be one of 'euclidean', 'cosine', got 'city'"),
        ([[0.0]], [[0.0, 1.0]], {}, "of one width, embedded by the same network, got 1 and 2"),
    ],
)
def test_refuses_what_cannot_be_ranked(query, gallery, options, message):
    with pytest.raises(ValueError, match=message):
        nl3d.rank(embeddings(query), embeddings(gallery), **options)


def test_refuses_vectors_of_different_networks():
    first = embeddings([[0.0]], metadata={"network": "aa", "model": "m", "weights": "imagenet"})
    second = embeddings([[0.0]], metadata={"network": "bb", "model": "m", "weights": "reid"})
    with pytest.raises(ValueError, match=r"same network, got m/imagenet/aa and m/reid/bb; embed both"):
        nl3d.rank(first, second)
    layer = embeddings([[0.0]], metadata={"network": "aa", "output": "features"})
    with pytest.raises(ValueError, match="same output"):
        nl3d.rank(layer, embeddings([[0.0]], metadata={"network": "aa", "output": "embedding"}))


def test_refuses_a_gallery_of_the_query_alone():
    people = embeddings([[0.0]])
    with pytest.raises(ValueError, match="gallery must hold a tracklet besides the query, got 1 in all"):
        nl3d.rank(people, people)


def test_draws_the_frames_from_where_they_were_embedded(tmp_path):
    for name, colour in (("a", (200, 0, 0)), ("b", (0, 200, 0)), ("c", (0, 0, 200))):
        write_jpeg(tmp_path / "people" / name / "1.jpg", colour=colour, size=(40, 20))
    people = nl3d.embed(tmp_path / "people", TinyNet())
    ranking = nl3d.rank(people, people)
    path = tmp_path / "ranking.png"
    ranking.save_picture(path, rows=2)
    with Image.open(path) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    for wanted in ((200, 0, 0), (0, 200, 0), (0, 0, 200)):
        assert any(max(abs(x - y) for x, y in zip(colour, wanted, strict=True)) < 4 for colour in colours)
    with pytest.raises(FileExistsError, match="exists already"):
        ranking.save_picture(path)
    ranking.save_picture(path, overwrite=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["people", "ranking.png"]
    with pytest.raises(
        ValueError, match=r"output .* must end in .png, .jpg, .jpeg, .webp, which is its format, got '.txt'"
    ):
        ranking.save_picture(tmp_path / "ranking.txt")
    with pytest.raises(ValueError, match="rows must be at least 1"):
        ranking.draw(rows=0)


def test_frames_from_memory_must_be_given_again():
    people = [Tracklet(torch.zeros(2, 3, 24, 12, dtype=torch.uint8)) for _ in range(3)]
    result = nl3d.embed(people, TinyNet())
    ranking = nl3d.rank(result, result)
    with pytest.raises(ValueError, match="query_source must be given for tracklets that were embedded from memory"):
        ranking.draw()
    assert ranking.draw(query_source=people, gallery_source=people).width > 0
