"""Search against an oracle in float64, from memory and from the file, while others add and remove."""

import pytest
import torch

from nl3d.embedding import embeddings as module
from nl3d.gallery.gallery import Gallery
from tests.embedding.people import embeddings


def expected(query, vectors, names, top, metric):
    query, vectors = query.double(), vectors.double()
    if metric == "cosine":
        query, vectors = (rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30) for rows in (query, vectors))
        distances = 1 - query @ vectors.T
    else:
        distances = (query[:, None] - vectors[None]).norm(dim=2)
    found = distances.sort(dim=1, stable=True)
    return [
        [(names[place], distance) for place, distance in zip(places[:top], row[:top], strict=True)]
        for places, row in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def check(gallery, query, vectors, names, *, top=7, metric="euclidean", **wanted):
    answer = gallery.find(query, top=top, metric=metric, **wanted)
    for matches, row in zip(answer, expected(query, vectors, names, top, metric), strict=True):
        assert [match.entry.name for match in matches.found] == [name for name, _ in row]
        torch.testing.assert_close(
            torch.tensor([match.distance for match in matches.found]), torch.tensor([far for _, far in row]),
            atol=2e-6, rtol=1e-5,
        )  # fmt: skip


@pytest.fixture(params=["memory", "file"])
def open_gallery(request, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 16 * 50)  # blocks of 50 rows
    size = {"memory": 2**30, "file": 0}[request.param]
    return lambda: Gallery(tmp_path / "people.gallery", create=True, cache_bytes=size)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equals_the_oracle_while_another_process_adds_and_removes(open_gallery, metric):
    mine, other = open_gallery(), open_gallery()
    query, vectors, names, cameras = torch.randn(70, 16), torch.empty(0, 16), [], []
    for number, (count, removed) in enumerate([(130, 0), (1, 0), (60, 25), (0, 49), (200, 3), (1, 1)]):
        if count:
            rows = torch.randn(count, 16) + (3.0 if number % 2 else 0.0)
            added = [f"{number}-{row}" for row in range(count)]
            labels = [str(row % 3) for row in range(count)]
            other.add(embeddings(rows, names=added, cameras=labels), thumbnails=False)
            vectors, names, cameras = torch.cat([vectors, rows]), names + added, cameras + labels
        if removed:
            gone = torch.randperm(len(names))[:removed].tolist()
            other.remove(name=[names[place] for place in gone])
            kept = [place for place in range(len(names)) if place not in gone]
            vectors, names, cameras = vectors[kept], [names[p] for p in kept], [cameras[p] for p in kept]
        check(mine, query, vectors, names, metric=metric)
        check(mine, query[0:1], vectors, names, metric=metric, top=1)
        of_two = [place for place, camera in enumerate(cameras) if camera == "2"]
        check(mine, query, vectors[of_two], [names[p] for p in of_two], metric=metric, camera="2")
    for matches, row in zip(
        mine.find(query, top=1000, metric=metric), expected(query, vectors, names, 1000, metric), strict=True
    ):  # in float32 some of so many stand in another order
        assert {match.entry.name for match in matches.found} == set(names)
        assert [match.distance for match in matches.found] == pytest.approx([far for _, far in row], abs=2e-6)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_ties_and_rows_far_from_zero_stand_in_the_order_of_addition(open_gallery, shift):
    gallery = open_gallery()
    rows = torch.randint(0, 2, (300, 16)).float() + shift
    names = [f"t{row}" for row in range(300)]
    gallery.add(embeddings(rows, names=names), thumbnails=False)
    check(gallery, rows[:5], rows, names, top=20)


def test_zeros_have_the_cosine_distance_one(open_gallery):
    gallery = open_gallery()
    gallery.add(embeddings(torch.cat([torch.zeros(1, 16), -torch.eye(16)])), thumbnails=False)
    found = gallery.find(torch.eye(16)[0], metric="cosine", top=17)[0].found
    assert [found[0].distance, found[-1].distance] == [1, 2]
    assert gallery.find(torch.zeros(16), metric="cosine")[0].found[0].distance == 1


def test_values_too_large_are_refused(open_gallery):
    gallery = open_gallery()
    gallery.add(embeddings(torch.full((2, 16), 1e30)), thumbnails=False)
    with pytest.raises(ValueError, match="embeddings must have finite squares"):
        gallery.find(torch.zeros(16))
