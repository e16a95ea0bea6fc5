from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nl3d.metrics import KReciprocal, evaluate, evaluate_distmat
from nl3d.metrics import rerank as rerank_module
from nl3d.metrics.distance import DistanceRows
from tests import oracles


def make(num_query=9, num_gallery=31, width=4):
    """Clusters, so that neighbours are mutual and sets expand."""
    centres = 3 * torch.randn(6, width, dtype=torch.float64)
    pids = torch.arange(num_query + num_gallery) % 6
    rows = centres[pids] + torch.randn(num_query + num_gallery, width, dtype=torch.float64)
    return rows[:num_query], rows[num_query:], pids[:num_query], pids[num_query:]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("k1", "k2"), [(7, 3), (8, 1), (1, 1), (3, 6), (60, 6)])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_equals_the_definition_on_sets(metric, k1, k2, weight):
    query, gallery, _, _ = make()
    distances = KReciprocal(k1=k1, k2=k2, original_weight=weight).rows(query, gallery, metric=metric)(0, 9)
    rows = torch.cat([query, gallery])
    rows = F.normalize(rows, dim=1) if metric == "cosine" else rows
    expected = oracles.k_reciprocal_distances(rows.tolist(), 9, k1, k2, weight)
    torch.testing.assert_close(distances, torch.tensor(expected, dtype=torch.float64))


def test_small_chunks_change_nothing(monkeypatch):
    query, gallery, _, _ = make()
    whole = KReciprocal(k1=7, k2=3).rows(query, gallery)(0, 9)
    monkeypatch.setattr(
        rerank_module, "_chunks", lambda total, cost: [(i, min(i + 4, total)) for i in range(0, total, 4)]
    )
    distances = KReciprocal(k1=7, k2=3).rows(query, gallery)
    torch.testing.assert_close(torch.cat([distances(0, 4), distances(4, 9)]), whole)


def test_evaluate_ranks_by_the_new_distance_without_junk():
    query, gallery, q_pids, g_pids = make()
    g_pids[5:9] = -1
    cameras = (np.zeros(9, int), np.ones(31, int))
    settings = KReciprocal(k1=7, k2=3)
    result = evaluate(query, gallery, q_pids, g_pids, *cameras, rerank=settings, chunk_size=2)
    kept = g_pids >= 0
    distmat = settings.rows(query, gallery[kept])(0, 9)
    assert result.mAP == evaluate_distmat(distmat, q_pids, g_pids[kept], cameras[0], cameras[1][kept]).mAP


def test_clusters_that_overlap_are_told_apart_better():
    pids = torch.arange(240) % 12
    rows = 1.2 * torch.randn(12, 16)[pids] + torch.randn(240, 16)
    arguments = (rows[:40], rows[40:], pids[:40], pids[40:], None, None)
    plain = evaluate(*arguments, exclude_same_camera=False)
    reranked = evaluate(*arguments, exclude_same_camera=False, rerank=KReciprocal(k1=12, k2=4))
    assert reranked.mAP > plain.mAP + 0.1


def test_a_row_is_its_own_first_neighbour_also_among_equal_rows():
    rows = torch.ones(32, 3)
    nearest, _ = rerank_module._neighbours(DistanceRows(rows, rows, "euclidean"), 5)
    assert torch.equal(nearest[:, 0], torch.arange(32))
    assert KReciprocal().rows(rows[:2], rows[2:])(0, 2).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, r"k1 must be at least 1, got 0"),
        ({"k2": 0}, r"k2 must be at least 1, got 0"),
        ({"original_weight": 1.5}, r"original_weight must be from 0 to 1, got 1.5"),
    ],
)
def test_refuses_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        KReciprocal(**options)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    query, gallery, _, _ = make()
    expected = KReciprocal(k1=7, k2=3).rows(query, gallery)(0, 9)
    torch.testing.assert_close(KReciprocal(k1=7, k2=3).rows(query.cuda(), gallery.cuda())(0, 9).cpu(), expected)
