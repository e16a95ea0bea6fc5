import builtins
import json
import resource
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

import nl3d
from nl3d.embedding import embeddings as embeddings_module
from nl3d.embedding.embeddings import Embeddings
from nl3d.retrieval.recall import measure_recall
from nl3d.retrieval.search import index as module
from nl3d.retrieval.search.index import GalleryIndex
from nl3d.retrieval.search.settings import IndexSettings
from tests.embedding.people import embeddings

pytest.importorskip("faiss")
FLAT, HNSW = IndexSettings(kind="flat"), IndexSettings(kind="hnsw", hnsw_m=8)
IVFPQ = IndexSettings(kind="ivfpq", nlist=8, pq_bytes=4)


def people(count, width=8, seed=0):
    """Vectors in forty groups."""
    generator = torch.Generator().manual_seed(seed)
    groups = 3 + torch.randn(40, width, generator=torch.Generator().manual_seed(7))
    chosen = groups[torch.randint(40, (count,), generator=generator)]
    return embeddings(chosen + 0.3 * torch.randn(count, width, generator=generator))


@pytest.fixture
def gallery(tmp_path):
    path = tmp_path / "gallery.safetensors"
    people(600).save(path)
    return Embeddings.open(path)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(embeddings_module, "BLOCK_BYTES", 4 * 8 * 100)  # a hundred rows: six blocks


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("settings", [FLAT, HNSW, IVFPQ], ids=lambda settings: settings.kind)
@pytest.mark.usefixtures("small_blocks")
def test_exhausted_an_index_gives_the_exact_ranking(tmp_path, gallery, settings, metric):
    query = people(70, seed=1)
    GalleryIndex.build(gallery, settings, metric=metric).save(tmp_path / "gallery.faiss")
    index = GalleryIndex.open(tmp_path / "gallery.faiss", gallery)
    assert (index.metric, index.settings.kind) == (metric, settings.kind)
    if settings.kind != "flat":
        assert index.settings == settings.resolved(600, 8)
        index.set_effort(**({"nprobe": 8} if settings.kind == "ivfpq" else {"ef_search": 600}), candidates=600)
    found = nl3d.rank(query, index, top=7)
    exact = nl3d.rank(query, embeddings(gallery.embeddings), top=7, metric=metric)
    assert torch.equal(found.indices, exact.indices)
    torch.testing.assert_close(found.distances, exact.distances, atol=2e-5, rtol=1e-4)
    assert found.metric == metric
    assert found.to_dict()["rankings"][3]["name"] == "t3"


@pytest.mark.parametrize(("settings", "least"), [(HNSW, 0.95), (IVFPQ, 0.6)], ids=lambda value: str(value)[:4])
def test_recall_is_what_counting_gives(gallery, settings, least):
    query, index = people(50, seed=1), GalleryIndex.build(gallery, settings)
    measured = measure_recall(query, index, top=5, sample=20)
    sample = [query.names[place * 50 // 20] for place in range(20)]
    found, exact = nl3d.rank(query, index, top=5, names=sample), nl3d.rank(query, gallery, top=5, names=sample)
    hits = sum(
        one.name in {other.name for other in expected.found}
        for ranked, expected in zip(found, exact, strict=True)
        for one in ranked.found
    )
    assert measured.recall == pytest.approx(hits / (20 * 5))
    assert (measured.top, measured.num_query) == (5, 20)
    assert least <= measured.recall <= 1
    assert str(measured).startswith(f"recall@5 {measured.recall:.1%}"[:-1])
    index.set_effort(candidates=5)
    if settings.kind == "ivfpq":  # codes of four bytes alone are worse: the proposals are measured
        assert measure_recall(query, index, top=5, sample=20).recall < measured.recall


@pytest.mark.parametrize("settings", [FLAT, HNSW, IVFPQ], ids=lambda settings: settings.kind)
def test_a_query_in_the_gallery_is_left_out_of_its_own_ranking(gallery, settings):
    index = GalleryIndex.build(gallery, settings)
    index.set_effort(candidates=1, nprobe=8 if settings.kind == "ivfpq" else None)
    for query in (gallery, gallery.path, str(gallery.path)):
        ranking = nl3d.rank(query, index, top=3, names=["t5", "t599", "t0"])
        assert not (ranking.indices == torch.tensor([[5], [599], [0]])).any()
        assert (ranking.indices >= 0).all()
    assert nl3d.rank(people(600), index, top=1, names=["t5"])[0].found[0].name == "t5"  # another set


def test_a_query_that_the_index_leaves_short_has_a_shorter_ranking(gallery):
    index = GalleryIndex.build(gallery, IndexSettings(kind="ivfpq", nlist=15, pq_bytes=8))
    index.set_effort(nprobe=1)
    ranking = nl3d.rank(people(4, seed=1), index, top=300)
    lengths = (ranking.indices >= 0).sum(dim=1).tolist()
    assert all(0 < length < 300 for length in lengths)
    assert [len(ranked.found) for ranked in ranking] == lengths
    assert ranking.distances.isinf().sum(dim=1).tolist() == [300 - length for length in lengths]
    json.dumps(ranking.to_dict(), allow_nan=False)


def test_equal_rows_stand_in_the_order_of_the_gallery():
    index = GalleryIndex.build(embeddings([[1.0], [0.0], [1.0], [0.0]]))
    assert nl3d.rank(embeddings([[0.0]]), index).indices.tolist() == [[1, 3, 0, 2]]


def test_rows_of_zeros_have_the_cosine_0():
    query, gallery = embeddings([[0.0, 0.0], [2.0, 0.0]]), embeddings([[1.0, 1.0], [0.0, 0.0], [1e30, 0.0]])
    found = nl3d.rank(query, GalleryIndex.build(gallery, metric="cosine"))
    exact = nl3d.rank(query, gallery, metric="cosine")
    torch.testing.assert_close(found.distances, exact.distances)
    assert found.indices[1].tolist() == [2, 0, 1]


def test_an_index_of_another_gallery_is_refused(tmp_path, gallery):
    path = tmp_path / "gallery.faiss"
    GalleryIndex.build(gallery).save(path)
    GalleryIndex.open(path, people(600))  # the same vectors in memory
    changed = people(600)
    changed.embeddings[300, 4] += 1
    with pytest.raises(ValueError, match="of this gallery, whose vectors have changed since; build it again"):
        GalleryIndex.open(path, changed)
    changed.save(gallery.path, overwrite=True)
    with pytest.raises(ValueError, match=r"gallery.faiss' must be of this gallery, whose vectors have changed"):
        GalleryIndex.open(path, Embeddings.open(gallery.path))
    with pytest.raises(ValueError, match="of this gallery of 599 x 8 numbers, got one of 600 x 8; build it again"):
        GalleryIndex.open(path, people(599))


def test_a_gallery_s_file_is_read_again_only_if_it_has_changed(tmp_path, gallery, monkeypatch):
    path = tmp_path / "gallery.faiss"
    GalleryIndex.build(gallery).save(path)
    copied = tmp_path / "copied.safetensors"
    copied.write_bytes(gallery.path.read_bytes())
    read = []
    monkeypatch.setattr(module, "_digest", lambda given, digest=module._digest: read.append(given) or digest(given))
    GalleryIndex.open(path, Embeddings.open(gallery.path))
    assert read == []
    GalleryIndex.open(path, other := Embeddings.open(copied))
    assert read == [other]


def test_a_file_of_an_index_is_whole_or_not_there(tmp_path, gallery, monkeypatch):
    index, path = GalleryIndex.build(gallery), tmp_path / "gallery.faiss"
    with monkeypatch.context() as patched:
        patched.setattr(module.json, "dumps", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            index.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["gallery.safetensors"]
    index.save(path)
    with pytest.raises(FileExistsError, match="exists already"):
        index.save(path)
    whole = path.read_bytes()
    for broken, message in ((whole[:-1], "written by nl3d rank"), (b"", "written by nl3d rank"),
                            (whole[900:], "cannot be read by FAISS")):  # fmt: skip
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=message):
            GalleryIndex.open(path, gallery)
    with pytest.raises(FileNotFoundError, match=r"index file '.*none' does not exist"):
        GalleryIndex.open(tmp_path / "none", gallery)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "tree"}, "index kind must be one of flat, hnsw, ivfpq, got 'tree'"),
        ({"kind": "hnsw", "nlist": 4}, "nlist is a setting of ivfpq, got an index of kind 'hnsw'"),
        ({"hnsw_m": 4}, "hnsw_m is a setting of hnsw, got an index of kind 'flat'"),
        ({"kind": "ivfpq", "nlist": 16}, "nlist must be at most 15, so that each list is trained on 39 rows, got 16"),
        ({"kind": "ivfpq", "pq_bytes": 3}, "pq_bytes must divide the width of the embeddings, 8, got 3"),
        ({"kind": "ivfpq", "nlist": 0}, "nlist must be at least 1, got 0"),
        ({"kind": "hnsw", "hnsw_m": 1}, "hnsw_m must be at least 2, got 1"),
    ],
)
def test_refuses_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        IndexSettings(**settings).resolved(600, 8)


def test_settings_follow_the_size_of_the_gallery():
    assert IndexSettings().resolved(100_000, 512) == IndexSettings(kind="flat")
    assert IndexSettings().resolved(1_000_000, 512) == IndexSettings(kind="ivfpq", nlist=2000, pq_bytes=64)
    assert IndexSettings().resolved(10**9, 2048).nlist == 65536 // 39  # as many as memory can train
    assert IndexSettings(kind="ivfpq").resolved(300, 9) == IndexSettings(kind="ivfpq", nlist=7, pq_bytes=9)
    assert str(IndexSettings(kind="hnsw").resolved(9, 9)) == "hnsw (hnsw_m 32, ef_construction 80)"
    with pytest.raises(ValueError, match="needs a gallery of 256 tracklets or more, got 255; use flat"):
        IndexSettings(kind="ivfpq").resolved(255, 8)


def test_refuses_what_cannot_be_searched(gallery):
    index = GalleryIndex.build(gallery)
    for arguments, message in (
        ({"nprobe": 3}, "nprobe is a setting of ivfpq, got an index of kind 'flat'"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            index.set_effort(**arguments)
    with pytest.raises(ValueError, match="metric must be that of the index, 'euclidean', got 'cosine'"):
        nl3d.rank(gallery, index, metric="cosine")
    with pytest.raises(ValueError, match="metric must be one of 'euclidean', 'cosine', got 'city'"):
        GalleryIndex.build(gallery, metric="city")
    with pytest.raises(ValueError, match="of one width"):
        nl3d.rank(people(3, width=4), index)
    with pytest.raises(ValueError, match="must have finite squares, got values that are too large"):
        GalleryIndex.build(embeddings([[1e30], [-1e30]]))
    with pytest.raises(ValueError, match="sample must be at least 1, got 0"):
        measure_recall(gallery, index, sample=0)


def test_without_faiss_says_what_to_install(gallery, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name == "faiss":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModuleNotFoundError, match=r"needs FAISS; install it with: pip install 'nl3d\[search\]'"):
        GalleryIndex.build(gallery)


def test_faiss_has_as_many_threads_as_pytorch_while_it_works():
    counts = [7]
    faiss = SimpleNamespace(omp_get_max_threads=lambda: counts[-1], omp_set_num_threads=counts.append)
    with module._threads_of_torch(faiss):
        assert counts == [7, torch.get_num_threads()]
    assert counts == [7, torch.get_num_threads(), 7]


def write_card(path, content, **changes):
    """The index file with another card behind it."""
    length = int.from_bytes(content[-16:-8], "little")
    card = json.dumps({**json.loads(content[-16 - length : -16]), **changes}).encode()
    path.write_bytes(content[: -16 - length] + card + len(card).to_bytes(8, "little") + content[-8:])


def test_damaged_cards_are_refused_in_one_sentence(tmp_path, gallery):
    path = tmp_path / "gallery.faiss"
    GalleryIndex.build(gallery).save(path)
    content = path.read_bytes()
    for changes in ({"metric": "city"}, {"settings": {"kind": "tree"}}, {"settings": None}, {"settings": {"x": 1}},
                    {"gallery": 3}, {"rows": "600"}, {"width": None}, {"rows": [600]}):  # fmt: skip
        write_card(path, content, **changes)
        with pytest.raises(ValueError, match=r"gallery.faiss' (is damaged|must be of this gallery)") as refusal:
            GalleryIndex.open(path, gallery)
        assert "\n" not in str(refusal.value)
    write_card(path, content, settings={"kind": "hnsw", "hnsw_m": 8, "ef_construction": 80})
    with pytest.raises(ValueError, match=r"must hold what it says, got IndexFlat\w* of 600 x 8; build it again"):
        GalleryIndex.open(path, gallery)
    for end in (content[:-16] + b"\xff" * 8 + content[-8:], content[:-16] + bytes(8) + content[-8:], content[-16:]):
        path.write_bytes(end)
        with pytest.raises(ValueError, match=r"is damaged .* its length is wrong"):
            GalleryIndex.open(path, gallery)
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(ValueError, match="is of an older version; build it again"):
        GalleryIndex.open(path, gallery)


@pytest.mark.parametrize("settings", [FLAT, HNSW, IVFPQ], ids=lambda settings: settings.kind)
def test_an_index_file_asks_for_no_more_memory_than_it_has(tmp_path, gallery, settings):
    path = tmp_path / "gallery.faiss"
    GalleryIndex.build(gallery, settings).save(path)
    content = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for place in range(0, min(len(content) - 300, 400), 4):  # lengths of vectors stand near the beginning
        path.write_bytes(content[:place] + (5 * 2**30).to_bytes(8, "little") + content[place + 8 :])
        with suppress(ValueError):
            GalleryIndex.open(path, gallery)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 2**10  # kB
