import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import nl3d
from nl3d.data.tracklets import Tracklet
from nl3d.embedding.embeddings import Embeddings
from nl3d.retrieval.ranking import Ranking
from nl3d.retrieval.search import nearest as module
from nl3d.retrieval.search.index import GalleryIndex
from nl3d.retrieval.search.settings import IndexSettings
from nl3d.viz.ranking import Tile, draw_ranking
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
    assert ranking.indices.tolist()[0] == [1, 2, 3]
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


@pytest.mark.parametrize("block_rows", [3, 64, 4096])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_ties_stand_in_the_order_of_the_gallery(monkeypatch, block_rows, metric):
    monkeypatch.setattr("nl3d.embedding.embeddings.BLOCK_BYTES", 4 * 8 * block_rows)
    generator = torch.Generator().manual_seed(3)
    kinds = torch.randn(4, 8, generator=generator)
    chosen = torch.randint(4, (300,), generator=generator)
    gallery = embeddings(kinds[chosen])
    ranking = nl3d.rank(embeddings(kinds), gallery, top=90, metric=metric)
    for row, indices in enumerate(ranking.indices.tolist()):
        distances = [walked(kinds[row : row + 1].double(), kinds.double(), metric)[0][kind] for kind in chosen]
        assert indices == sorted(range(300), key=lambda place, known=distances: (known[place], place))[:90]
        assert ranking.distances[row, 0] == 0


@pytest.mark.parametrize("offset", [300.0, 1000.0, 30000.0])
@pytest.mark.parametrize("index", [None, IndexSettings(kind="flat"), IndexSettings(kind="hnsw", hnsw_m=16)], ids=str)
def test_the_nearest_are_right_far_from_zero(offset, index):
    generator = torch.Generator().manual_seed(5)
    query, rows = (torch.randn(count, 64, generator=generator) * 0.1 + offset for count in (20, 400))
    gallery = embeddings(rows)
    if index is not None:
        pytest.importorskip("faiss")
        gallery = GalleryIndex.build(gallery, index)
        gallery.set_effort(candidates=400)
    ranking = nl3d.rank(embeddings(query), gallery, top=5)
    distances = torch.cdist(query.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected = distances.sort(dim=1, stable=True)
    assert torch.equal(ranking.indices, expected.indices[:, :5])
    torch.testing.assert_close(ranking.distances.double(), expected.values[:, :5], rtol=1e-5, atol=0)


def test_double_precision_keeps_its_digits():
    gallery = Embeddings(torch.tensor([[1e9 + 2.0], [1e9 + 1.0]], dtype=torch.float64))
    query = Embeddings(torch.tensor([[1e9]], dtype=torch.float64))
    ranking = nl3d.rank(query, gallery)
    assert (ranking.indices.tolist(), ranking.distances.tolist()) == ([[1, 0]], [[1.0, 2.0]])


def test_people_are_matched_by_label_and_junk_by_nothing():
    query = embeddings([[0.0], [9.0]], people=("dora", "-1"))
    gallery = embeddings([[1.0], [2.0], [3.0], [4.0]], people=("bob", "dora", "-1", None))
    ranking = nl3d.rank(query, gallery)
    assert [found.match for found in ranking[0].found] == [False, True, None, None]
    assert [found.match for found in ranking[1].found] == [None] * 4
    numbers = nl3d.rank(embeddings([[0.0]], people=("7",)), gallery)
    assert [found.match for found in numbers[0].found] == [None] * 4  # names and numbers do not compare


def test_a_table_of_labels_marks_matches(tmp_path):
    query, gallery = embeddings([[0.0]], names=("a",)), embeddings([[1.0], [2.0], [3.0]], names=("b", "c", "d"))
    table = tmp_path / "labels.csv"
    table.write_text("tracklet,pid\na,ann\nb,bob\nc, ann\n")
    assert [found.match for found in nl3d.rank(query, gallery, labels=table)[0].found] == [False, True, None]
    with pytest.raises(ValueError, match=r"labels.csv' must name tracklets of the gallery, such as 't0'; it names 'a'"):
        nl3d.rank(query, embeddings([[0.0]]), labels=table)
    same = embeddings([[0.0]], names=("a",))
    with pytest.raises(ValueError, match="must have a part column where query and gallery share names, such as 'a'"):
        nl3d.rank(query, same, labels=table)
    table.write_text("tracklet,pid,part\na,ann,query\na,bob,gallery\n")
    assert nl3d.rank(query, same, labels=table)[0].found[0].match is False


def test_prints_one_line_and_escaped_html(monkeypatch):
    names = ("<i>", *"abcdefg")
    query = embeddings(torch.zeros(8, 1), names=names, people=("ann",) * 8)
    ranking = nl3d.rank(query, embeddings([[1.0], [2.0]], people=("ann", "bob"), names=("<b>", "c")))
    assert repr(ranking) == "Ranking(8 queries in 2 tracklets, top 2, euclidean, 8 of 8 matched at rank 1)"
    html = ranking._repr_html_()
    assert "<td>&lt;i&gt;</td><td>1</td><td>&lt;b&gt;</td><td>1.0000</td><td></td><td>yes</td>" in html
    assert "<b>" not in html
    assert "<i>" not in html
    assert html.count("<tr>") == 11  # five queries
    frames = [Tracklet(torch.zeros(2, 3, 24, 12, dtype=torch.uint8), name=name) for name in names]
    monkeypatch.setattr(Ranking, "draw", lambda self, rows: draw_ranking([[Tile(frames[0].read(0), "x")]]))
    assert '<img src="data:image/png;base64,iVBORw0KGgo' in ranking._repr_html_()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="to_pandas needs pandas"):
        ranking.to_pandas()
    monkeypatch.delitem(sys.modules, "pandas")
    pandas = pytest.importorskip("pandas")
    frame = ranking.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.iloc[1][["query", "name", "rank", "match"]].tolist() == ["<i>", "c", 2, False]


def test_files_of_others_are_ranked(tmp_path):
    np.savez(tmp_path / "query.npz", features=np.zeros((1, 2)), pids=[3.0])
    np.save(tmp_path / "gallery.npy", np.ones((2, 2)) * [[2.0], [1.0]])
    ranking = nl3d.rank(tmp_path / "query.npz", tmp_path / "gallery.npy")
    assert "\n".join(str(ranking[0]).splitlines()[:3]) == (
        "query 1\n  rank  tracklet  distance  frames\n     1  2           1.4142  -"
    )
    assert "frames" not in ranking.to_dict()["rankings"][0]["found"][0]


def test_a_picture_never_replaces_a_frame(tmp_path):
    for name in ("a", "b"):
        write_jpeg(tmp_path / "people" / name / "1.jpg", colour=(200, 0, 0), size=(40, 20))
    (tmp_path / "people.csv").write_text("path,tracklet\npeople/a/1.jpg,a\npeople/b/1.jpg,b\n")
    frame = tmp_path / "people" / "b" / "1.jpg"
    before = frame.read_bytes()
    for source in ("people", "people.csv"):
        people = nl3d.embed(tmp_path / source, TinyNet())
        with pytest.raises(ValueError, match="must not replace an input"):
            nl3d.rank(people, people).save_picture(frame, overwrite=True)
    assert frame.read_bytes() == before


def test_a_calibration_judges_what_was_found(tmp_path):
    made = {"network": "abc", "output": "embedding"}
    query = Embeddings(torch.tensor([[0.0], [9.0]]), names=("a", "b"), metadata=made)
    people = ("ann", None, None)
    gallery = Embeddings(torch.tensor([[1.0], [2.0], [3.0]]), names=("x", "y", "z"), people=people, metadata=made)
    calibration = nl3d.Calibration(
        **made, metric="euclidean", slope=-1, intercept=4, same_above=0.9, different_below=0.1
    )
    calibration.save(tmp_path / "c.json")
    for given in (calibration, tmp_path / "c.json"):
        known, unknown = nl3d.rank(query, gallery, calibration=given)
        assert [found.decision for found in known.found] == ["same", "unsure", "different"]
        assert known.found[1].probability == pytest.approx(0.5)  # log odds of 4 - 2 ** 2
        assert (known.answer, unknown.answer) == ("ann", "unknown")
    lines = str(known).splitlines()
    assert lines[0] == "query a: ann"
    assert lines[1].split() == ["rank", "tracklet", "distance", "probability", "decision", "frames"]
    assert lines[2].split() == ["1", "x", "1.0000", "0.953", "same", "-"]
    plain = nl3d.rank(query, gallery)[0]
    assert (plain.answer, plain.found[0].probability) == (None, None)
    other = Embeddings(torch.eye(1), metadata=made | {"network": "x"})
    with pytest.raises(ValueError, match="calibration must be of the network"):
        nl3d.rank(other, Embeddings(torch.eye(1)), calibration=calibration)
    with pytest.raises(ValueError, match="calibration must be for the metric 'cosine'"):
        nl3d.rank(query, gallery, metric="cosine", calibration=calibration)


def test_the_bundled_networks_vectors_are_judged_without_asking():
    bundled = nl3d.Calibration.bundled()
    people = Embeddings(torch.tensor([[0.0], [1e3]]), metadata={"network": bundled.network, "output": bundled.output})
    assert [ranked.answer for ranked in nl3d.rank(people, people)] == ["unknown", "unknown"]
    assert nl3d.rank(people, people, metric="cosine")[0].answer is None
