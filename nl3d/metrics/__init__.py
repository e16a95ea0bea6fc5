"""Ranking metrics for embeddings of any origin; a leaf of the package."""

from typing import Any

from nl3d.metrics.distance import pairwise_distance as pairwise_distance
from nl3d.metrics.ranking import RankingResult as RankingResult
from nl3d.metrics.ranking import evaluate as evaluate
from nl3d.metrics.ranking import evaluate_distmat as evaluate_distmat
from nl3d.metrics.rerank import KReciprocal as KReciprocal
from nl3d.metrics.splits import SplitSummary as SplitSummary
from nl3d.metrics.splits import summarise_splits as summarise_splits


def __getattr__(name: str) -> Any:
    if name != "RankingMetric":
        raise AttributeError(f"module 'nl3d.metrics' has no attribute {name!r}")
    from nl3d.metrics.streaming import RankingMetric  # needs torchmetrics, which is an extra

    return RankingMetric
