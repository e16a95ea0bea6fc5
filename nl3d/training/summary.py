"""Scores of finished runs in percent, as means and deviations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

SCORES = ("rank-1", "rank-5", "rank-10", "mAP")


def scores_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the four scores of the paper's tables, in percent, from the result of a run."""
    cmc = result["cmc"]
    return {
        "rank-1": 100 * cmc["1"],
        "rank-5": 100 * cmc["5"],
        "rank-10": 100 * cmc["10"],
        "mAP": 100 * result["mAP"],
    }


def mean_and_deviation(values: Sequence[float]) -> str:
    """Format the mean and, from two values on, the sample deviation."""
    if not values:
        return ""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def split_summary(results: Sequence[Mapping[str, Any]]) -> str:
    """Format mean and deviation over splits on one line."""
    scores = [scores_of(result) for result in results]
    parts = [f"{column} {mean_and_deviation([score[column] for score in scores])} %" for column in SCORES]
    return f"{len(results)} splits: {', '.join(parts)}"
