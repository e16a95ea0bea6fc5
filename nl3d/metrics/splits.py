"""Mean and deviation over the random splits of iLIDS-VID and PRID2011 (Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from nl3d.metrics.ranking import RankingResult


class MeanDeviation(NamedTuple):
    """Mean and sample standard deviation (divided by n - 1)."""

    mean: float
    deviation: float


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Scores over several splits; ``num_valid_queries`` lists those of every split."""

    cmc: dict[int, MeanDeviation]
    mAP: MeanDeviation
    mINP: MeanDeviation
    num_splits: int
    num_valid_queries: tuple[int, ...]
    ap: str


def summarise_splits(results: Sequence[RankingResult]) -> SplitSummary:
    """Average the results of several splits, each split weighing the same.

    Args:
        results: One result per split, all scored by the same rules.

    Raises:
        ValueError: If there are fewer than two results, or they were scored by different rules.

    Example:
        >>> from nl3d.metrics import evaluate_distmat
        >>> one = evaluate_distmat(torch.tensor([[0.2, 0.1]]), [3], [3, 4], [0], [1, 1])
        >>> two = evaluate_distmat(torch.tensor([[0.1, 0.2]]), [3], [3, 4], [0], [1, 1])
        >>> summarise_splits([one, two]).mAP.mean
        0.75
    """
    if len(results) < 2:
        raise ValueError(f"results must be of at least two splits, got {len(results)}")
    for name in ("ap", "exclude_same_camera"):
        found = sorted({str(getattr(result, name)) for result in results})
        if len(found) > 1:
            raise ValueError(f"results must be scored by one {name}, got {' and '.join(found)}")
    ranks = sorted({tuple(result.cmc) for result in results})
    if len(ranks) > 1:
        raise ValueError(f"results must have the CMC at the same ranks, got {' and '.join(map(str, ranks))}")
    return SplitSummary(
        cmc={rank: _summarise([result.cmc[rank] for result in results]) for rank in ranks[0]},
        mAP=_summarise([result.mAP for result in results]),
        mINP=_summarise([result.mINP for result in results]),
        num_splits=len(results),
        num_valid_queries=tuple(result.num_valid_queries for result in results),
        ap=results[0].ap,
    )


def _summarise(values: list[float]) -> MeanDeviation:
    return MeanDeviation(fmean(values), stdev(values))
