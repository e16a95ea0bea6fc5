"""CMC, mAP and mINP of a retrieval, by the protocols of video re-identification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nl3d.metrics.distance import DistanceRows, Metric
from nl3d.metrics.inputs import Array, as_embeddings, as_matrix, check_choice
from nl3d.metrics.matches import Clothes, Labels, Matches, positions_in_runs
from nl3d.metrics.positions import match_positions
from nl3d.metrics.rerank import KReciprocal

AveragePrecision: TypeAlias = Literal["interpolated", "trapezoid"]


@dataclass(frozen=True, kw_only=True)
class RankingResult:
    """Scores of one evaluation, as fractions in [0, 1], and what they were computed from.

    ``num_valid_queries`` is the number of queries with a match, of which all scores are means; the other
    ``num_queries_without_match`` are left out of them. ``num_gallery`` counts the gallery without junk.
    """

    cmc: dict[int, float]
    mAP: float
    mINP: float
    num_queries: int
    num_valid_queries: int
    num_queries_without_match: int
    num_gallery: int
    num_junk: int
    ap: str
    exclude_same_camera: bool
    clothes: str = "any"


@torch.no_grad()
def evaluate(
    query: Array,
    gallery: Array,
    q_pids: Labels,
    g_pids: Labels,
    q_camids: Labels | None,
    g_camids: Labels | None,
    *,
    metric: Metric = "euclidean",
    ap: AveragePrecision = "interpolated",
    ranks: Sequence[int] = (1, 5, 10, 20),
    junk_pids: Sequence[int] = (-1,),
    distractor_pids: Sequence[int] = (),
    exclude_same_camera: bool = True,
    q_clothes: Labels | None = None,
    g_clothes: Labels | None = None,
    clothes: Clothes = "any",
    rerank: KReciprocal | None = None,
    chunk_size: int | None = None,
) -> RankingResult:
    """Rank the gallery for every query and score the rankings.

    A gallery row *matches* a query if it has its pid. Junk rows are removed from the gallery beforehand; with
    ``exclude_same_camera``, rows with both the query's pid and its camid are removed from that query's ranking (which
    also removes the query itself, where the gallery holds it), while other identities of that camera stay. All else
    that does not match is a wrong answer. At equal distance the gallery's order decides, as in a stable sort.

    With m matches at positions r_1 < ... < r_m of a ranking, counted from 1:

    - CMC at rank k is 1 if r_1 <= k.
    - ``ap="interpolated"`` is the mean of the precisions at the matches, i / r_i (torchreid and most papers).
    - ``ap="trapezoid"`` is the mean of (p_i + i / r_i) / 2, where p_i = (i - 1) / (r_i - 1) is the precision just
      before the match, or 1 if r_i = 1 (the official MARS and Market-1501 code). It is never above the other.
    - INP is m / r_m.

    Each is averaged over the queries with at least one match.

    The official MARS protocol is ``junk_pids=(-1,)`` with all test rows, the queries too, as the gallery, and
    ``ap="trapezoid"``. Its distractors, pid 0, need no option, since no query has that pid; ``distractor_pids=(0,)``
    makes it so where one does.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 4.2 names CMC and mAP. INP after Ye et al. 2020, arXiv:2001.04193.

    Args:
        query: Embeddings, as a tensor or a NumPy array. The work is done on their device.
        gallery: Embeddings of the same width, on the same device.
        q_pids: Identities of the queries.
        g_pids: Identities of the gallery.
        q_camids: Cameras of the queries; None if the same camera is not excluded.
        g_camids: Cameras of the gallery; None if the same camera is not excluded.
        metric: As for :func:`pairwise_distance`.
        ap: Which average precision, see above.
        ranks: Ranks at which the CMC is read.
        junk_pids: Identities whose gallery rows are neither right nor wrong.
        distractor_pids: Identities whose gallery rows are wrong for every query.
        exclude_same_camera: Whether rows of the query's identity and camera are removed.
        q_clothes: Clothes of the queries, for ``clothes``; numbers are compared within one identity only.
        g_clothes: Clothes of the gallery.
        clothes: ``"same"`` also removes rows of the query's identity in other clothes, ``"changed"`` those in the
            query's clothes: the same-clothes and clothes-changing protocols of Gu et al. 2022, arXiv:2204.06890.
        rerank: Re-ranks with these settings before scoring.
        chunk_size: Queries that are ranked at a time; by default as many as fit 32 MiB (128 MiB on a GPU) of distances.

    Shape:
        - query: ``(num_query, D)``
        - gallery: ``(num_gallery, D)``
        - q_pids, q_camids: ``(num_query,)``
        - g_pids, g_camids: ``(num_gallery,)``

    Raises:
        TypeError: If embeddings are not floating point, or labels not integers.
        ValueError: If an option is out of range, if shapes do not fit, if an embedding is not finite, or if no query
            has a match.

    Example:
        >>> query, gallery = torch.tensor([[0.0], [5.0]]), torch.tensor([[0.5], [1.0], [4.0]])
        >>> result = evaluate(query, gallery, [7, 9], [9, 7, 9], [0, 0], [1, 1, 1], ranks=(1, 2))
        >>> result.cmc, round(result.mAP, 3)
        ({1: 0.5, 2: 1.0}, 0.667)
    """
    _check_options(ap, ranks, chunk_size, clothes)
    rows, others = as_embeddings(query, gallery)
    matches = Matches(
        (q_pids, g_pids),
        (q_camids, g_camids),
        sizes=(len(rows), len(others)),
        junk_pids=junk_pids,
        distractor_pids=distractor_pids,
        exclude_same_camera=exclude_same_camera,
        clothes=clothes,
        clothes_labels=(q_clothes, g_clothes),
    )
    kept = torch.from_numpy(matches.kept).to(others.device)
    others = others[kept] if matches.num_junk else others
    source = DistanceRows(rows, others, metric) if rerank is None else rerank.rows(rows, others, metric=metric)
    return _score(source, matches, ap=ap, ranks=ranks, chunk_size=chunk_size, device=rows.device)


@torch.no_grad()
def evaluate_distmat(  # noqa: D417 - the others are those of evaluate
    distmat: Array,
    q_pids: Labels,
    g_pids: Labels,
    q_camids: Labels | None,
    g_camids: Labels | None,
    *,
    ap: AveragePrecision = "interpolated",
    ranks: Sequence[int] = (1, 5, 10, 20),
    junk_pids: Sequence[int] = (-1,),
    distractor_pids: Sequence[int] = (),
    exclude_same_camera: bool = True,
    q_clothes: Labels | None = None,
    g_clothes: Labels | None = None,
    clothes: Clothes = "any",
    chunk_size: int | None = None,
) -> RankingResult:
    """Score the rankings of distances that were computed elsewhere; all else is as for :func:`evaluate`.

    Args:
        distmat: Distance of every query to every gallery row, as a tensor or a NumPy array.
        q_pids: As for :func:`evaluate`, and so are all that follow.

    Shape:
        - distmat: ``(num_query, num_gallery)``

    Raises:
        TypeError: If ``distmat`` is not a floating-point tensor or array, or labels are not integers.
        ValueError: As :func:`evaluate`; ``distmat`` must not hold NaN.

    Example:
        >>> evaluate_distmat(torch.tensor([[0.2, 0.1]]), [3], [3, 4], [0], [1, 1]).mAP
        0.5
    """
    _check_options(ap, ranks, chunk_size, clothes)
    values = as_matrix(distmat, "(num_query, num_gallery)", name="distmat")
    if values.isnan().any():
        raise ValueError(f"distmat must not hold NaN, got {int(values.isnan().sum())} of them")
    matches = Matches(
        (q_pids, g_pids),
        (q_camids, g_camids),
        sizes=(values.shape[0], values.shape[1]),
        junk_pids=junk_pids,
        distractor_pids=distractor_pids,
        exclude_same_camera=exclude_same_camera,
        clothes=clothes,
        clothes_labels=(q_clothes, g_clothes),
    )
    kept = torch.from_numpy(matches.kept).to(values.device)
    dtype = torch.promote_types(values.dtype, torch.float32)  # NumPy has no bfloat16

    def distances(start: int, stop: int) -> Tensor:
        return values[start:stop][:, kept].to(dtype)  # a copy

    return _score(distances, matches, ap=ap, ranks=ranks, chunk_size=chunk_size, device=values.device)


def _check_options(ap: str, ranks: Sequence[int], chunk_size: int | None, clothes: str) -> None:
    """Refuse wrong options before anything is computed."""
    check_choice(ap, ("interpolated", "trapezoid"), name="ap")
    check_choice(clothes, ("any", "same", "changed"), name="clothes")
    ranks = tuple(ranks)
    if not ranks or any(isinstance(rank, bool) or not isinstance(rank, int) or rank < 1 for rank in ranks):
        raise ValueError(f"ranks must be integers of at least 1, got {ranks}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")


def _score(
    distances: Callable[[int, int], Tensor],
    matches: Matches,
    *,
    ap: str,
    ranks: Sequence[int],
    chunk_size: int | None,
    device: torch.device,
) -> RankingResult:
    """Rank chunk by chunk, keeping three numbers per query."""
    num_queries, num_gallery = len(matches.q_pids), len(matches.g_pids)
    if chunk_size is None:
        chunk_size = max(1, (2**23 if device.type == "cpu" else 2**25) // num_gallery)
    scores = [
        _score_chunk(distances, matches, start, min(start + chunk_size, num_queries), ap)
        for start in range(0, num_queries, chunk_size)
    ]
    first, precision, penalty = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    if not len(first):
        cause = " under another camera" if matches.exclude_same_camera else ""
        cause += {"any": "", "same": " in the same clothes", "changed": " in other clothes"}[matches.clothes]
        raise ValueError(
            f"q_pids must have a match in g_pids{cause}, got none for any of {num_queries} queries; "
            "check that pids and camids are numbered alike"
        )
    return RankingResult(
        cmc={rank: float((first <= rank).mean()) for rank in ranks},
        mAP=float(precision.mean()),
        mINP=float(penalty.mean()),
        num_queries=num_queries,
        num_valid_queries=len(first),
        num_queries_without_match=num_queries - len(first),
        num_gallery=num_gallery,
        num_junk=matches.num_junk,
        ap=ap,
        exclude_same_camera=matches.exclude_same_camera,
        clothes=matches.clothes,
    )


def _score_chunk(
    distances: Callable[[int, int], Tensor], matches: Matches, start: int, stop: int, ap: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position of the first match, average precision and INP of each query with a match."""
    rows, columns, excluded = matches.pairs(start, stop)
    chunk = distances(start, stop)
    chunk[torch.from_numpy(rows[excluded]), torch.from_numpy(columns[excluded])] = torch.nan
    rows, columns = rows[~excluded], columns[~excluded]
    positions = match_positions(chunk, rows, columns)
    positions = positions[np.lexsort((positions, rows))]  # within each row; rows ascend already
    counts = np.bincount(rows, minlength=stop - start)
    counts = counts[counts > 0]
    order = positions_in_runs(counts) + 1  # i of r_i
    precision = order / positions
    if ap == "trapezoid":
        before = np.where(positions == 1, 1.0, (order - 1) / np.maximum(positions - 1, 1))
        precision = (before + precision) / 2
    ends = np.cumsum(counts)
    average = np.add.reduceat(precision, ends - counts) / counts
    return positions[ends - counts], average, counts / positions[ends - 1]
