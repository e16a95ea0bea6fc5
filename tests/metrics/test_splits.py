from __future__ import annotations

import dataclasses
import statistics

import pytest
import torch

from nl3d.metrics import evaluate_distmat, summarise_splits


def make_splits(count=10, **options):
    """Two cameras and one match a query, as in iLIDS-VID."""
    pids = list(range(8))
    return [evaluate_distmat(torch.rand(8, 8), pids, pids, [0] * 8, [1] * 8, **options) for _ in range(count)]


def test_mean_and_deviation_of_ten_splits():
    results = make_splits()
    summary = summarise_splits(results)
    assert summary.num_splits == 10
    assert summary.num_valid_queries == (8,) * 10
    assert summary.ap == "interpolated"
    for name in ("mAP", "mINP"):
        values = [getattr(result, name) for result in results]
        mean = sum(values) / 10
        deviation = (sum((value - mean) ** 2 for value in values) / 9) ** 0.5
        assert getattr(summary, name) == pytest.approx((mean, deviation))
        assert deviation > 0
    assert summary.cmc[5].mean == pytest.approx(statistics.mean(result.cmc[5] for result in results))
    assert list(summary.cmc) == [1, 5, 10, 20]


def test_refuses_what_cannot_be_averaged():
    one, other = make_splits(2)
    with pytest.raises(ValueError, match=r"results must be of at least two splits, got 1"):
        summarise_splits([one])
    with pytest.raises(ValueError, match=r"results must be scored by one ap, got interpolated and trapezoid"):
        summarise_splits([one, *make_splits(1, ap="trapezoid")])
    with pytest.raises(
        ValueError, match=r"results must have the CMC at the same ranks, got \(1, 2\) and \(1, 5, 10, 20\)"
    ):
        summarise_splits([one, *make_splits(1, ranks=(1, 2))])
    with pytest.raises(ValueError, match=r"results must be scored by one exclude_same_camera, got False and True"):
        summarise_splits([one, dataclasses.replace(other, exclude_same_camera=False)])
