from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import nl3d.metrics
from nl3d.metrics import evaluate
from tests import gloo

GALLERY_PIDS = torch.tensor([0, 1, 2, 3, -1, 1, 0, 2])


def make():
    query, gallery = torch.randn(4, 3), torch.randn(8, 3)
    return query, gallery, torch.arange(4), GALLERY_PIDS, torch.zeros(4).long(), torch.ones(8).long()


def test_batches_give_what_evaluate_gives():
    pytest.importorskip("torchmetrics")
    query, gallery, q_pids, g_pids, q_camids, g_camids = make()
    ranking = nl3d.metrics.RankingMetric(metric="cosine", ap="trapezoid", ranks=(1, 3))
    for half in (slice(0, 3), slice(3, None)):
        ranking.update(gallery[half], g_pids[half], g_camids[half], role="gallery")
        ranking.update(query[half], q_pids[half], q_camids[half], role="query")
    result = evaluate(query, gallery, q_pids, g_pids, q_camids, g_camids, metric="cosine", ap="trapezoid", ranks=(1, 3))
    scores = {name: value.item() for name, value in ranking.compute().items()}
    assert scores == pytest.approx(
        {
            "mAP": result.mAP,
            "mINP": result.mINP,
            "num_valid_queries": 4,
            "cmc_1": result.cmc[1],
            "cmc_3": result.cmc[3],
        }
    )
    ranking.reset()
    with (
        pytest.warns(UserWarning, match="before the ``update`` method"),
        pytest.raises(ValueError, match=r"RankingMetric must be updated before it is computed, got no batch"),
    ):
        ranking.compute()


def test_two_processes_rank_all_batches_together():
    pytest.importorskip("torchmetrics")
    gloo.run(_rank_together)


def _rank_together(rank):
    torch.manual_seed(0)
    query, gallery, q_pids, g_pids, q_camids, g_camids = inputs = make()
    ranking = nl3d.metrics.RankingMetric()
    mine = (slice(0, 3), slice(3, None))[rank]  # unequal shares, of the queries too
    ranking.update(query[mine], q_pids[mine], q_camids[mine], role="query")
    ranking.update(gallery[mine], g_pids[mine], g_camids[mine], role="gallery")
    scores, expected = ranking.compute(), evaluate(*inputs)
    assert scores["num_valid_queries"] == 4
    assert scores["mAP"].item() == pytest.approx(expected.mAP)
    assert scores["mINP"].item() == pytest.approx(expected.mINP)


def test_rows_can_be_query_and_gallery():
    pytest.importorskip("torchmetrics")
    _, gallery, _, g_pids, _, _ = make()
    camids = torch.arange(8) % 2
    ranking = nl3d.metrics.RankingMetric()
    ranking.update(gallery, g_pids, camids, role="both")
    expected = evaluate(gallery, gallery, g_pids, g_pids, camids, camids)
    assert ranking.compute()["mAP"].item() == pytest.approx(expected.mAP)


def test_refuses_a_wrong_batch():
    pytest.importorskip("torchmetrics")
    ranking = nl3d.metrics.RankingMetric()
    with pytest.raises(ValueError, match=r"role must be one of 'query', 'gallery', 'both', got 'probe'"):
        ranking.update(torch.ones(2, 3), torch.ones(2).long(), torch.ones(2).long(), role="probe")
    with pytest.raises(ValueError, match=r"camids must have one entry for each row, 2, got shape \(3,\)"):
        ranking.update(torch.ones(2, 3), torch.ones(2).long(), torch.ones(3).long(), role="query")


def test_without_torchmetrics_only_the_metric_class_is_missing():
    code = """
import sys
sys.modules["torchmetrics"] = None
import nl3d.metrics
nl3d.metrics.evaluate
try:
    nl3d.metrics.RankingMetric
except ModuleNotFoundError as error:
    sys.exit("pip install 'nl3d[metrics]'" not in str(error))
sys.exit("no error")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match=r"module 'nl3d.metrics' has no attribute 'accuracy'"):
        nl3d.metrics.accuracy  # noqa: B018
