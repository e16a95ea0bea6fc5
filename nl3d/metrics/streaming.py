"""The evaluation as a torchmetrics metric; needs the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from nl3d.metrics.distance import Metric
from nl3d.metrics.inputs import as_labels, as_matrix, check_choice
from nl3d.metrics.ranking import AveragePrecision, evaluate
from nl3d.metrics.rerank import KReciprocal

try:
    import torchmetrics
    from torchmetrics.utilities import dim_zero_cat
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "nl3d.metrics.RankingMetric needs torchmetrics; pip install 'nl3d[metrics]'", name=error.name
    ) from error

ROLES = ("query", "gallery", "both")


class RankingMetric(torchmetrics.Metric):
    """:func:`evaluate` on embeddings that arrive in batches, on one process or many.

    Batches are collected with ``update`` and ranked once in ``compute``, which gives tensors under the names ``mAP``,
    ``mINP``, ``num_valid_queries`` and ``cmc_<rank>``. Every process must see other tracklets: a distributed sampler
    that repeats some to even out the shares would rank them twice. Calling the metric itself ranks the batch alone and
    needs a query with a match in it.

    Args:
        metric: As for :func:`evaluate`, and so are all that follow.

    Raises:
        ModuleNotFoundError: On import, if torchmetrics is not installed.
        ValueError: In ``update``, if lengths do not fit or the role is unknown; in ``compute``, as :func:`evaluate`.

    Example:
        >>> ranking = RankingMetric(ranks=(1,))
        >>> ranking.update(torch.tensor([[0.0]]), torch.tensor([3]), torch.tensor([0]), role="query")
        >>> ranking.update(torch.tensor([[1.0], [2.0]]), torch.tensor([3, 4]), torch.tensor([1, 1]), role="gallery")
        >>> ranking.compute()["mAP"].item()
        1.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    embeddings: list[Tensor]
    pids: list[Tensor]
    camids: list[Tensor]
    roles: list[Tensor]

    def __init__(
        self,
        *,
        metric: Metric = "euclidean",
        ap: AveragePrecision = "interpolated",
        ranks: Sequence[int] = (1, 5, 10, 20),
        junk_pids: Sequence[int] = (-1,),
        distractor_pids: Sequence[int] = (),
        exclude_same_camera: bool = True,
        rerank: KReciprocal | None = None,
    ) -> None:
        super().__init__()
        self.rules: dict[str, Any] = {
            "metric": metric,
            "ap": ap,
            "ranks": tuple(ranks),
            "junk_pids": tuple(junk_pids),
            "distractor_pids": tuple(distractor_pids),
            "exclude_same_camera": exclude_same_camera,
            "rerank": rerank,
        }
        for name in ("embeddings", "pids", "camids", "roles"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, embeddings: Tensor, pids: Tensor, camids: Tensor, *, role: Literal["query", "gallery", "both"]
    ) -> None:
        """Add a batch of queries, of the gallery, or of rows that are both."""
        check_choice(role, ROLES, name="role")
        rows = as_matrix(embeddings, "(B, D)", name="embeddings")
        self.embeddings.append(rows)
        self.pids.append(torch.from_numpy(as_labels(pids, len(rows), name="pids")).to(rows.device))
        self.camids.append(torch.from_numpy(as_labels(camids, len(rows), name="camids")).to(rows.device))
        self.roles.append(torch.full((len(rows),), ROLES.index(role), device=rows.device))

    def compute(self) -> dict[str, Tensor]:
        if not len(self.embeddings):
            raise ValueError("RankingMetric must be updated before it is computed, got no batch")
        embeddings, pids, camids, roles = (
            dim_zero_cat(state) for state in (self.embeddings, self.pids, self.camids, self.roles)
        )
        is_query, is_gallery = roles != ROLES.index("gallery"), roles != ROLES.index("query")
        result = evaluate(
            embeddings[is_query],
            embeddings[is_gallery],
            pids[is_query],
            pids[is_gallery],
            camids[is_query],
            camids[is_gallery],
            **self.rules,
        )
        scores: dict[str, float] = {"mAP": result.mAP, "mINP": result.mINP}
        scores |= {"num_valid_queries": result.num_valid_queries}
        scores |= {f"cmc_{rank}": fraction for rank, fraction in result.cmc.items()}
        return {name: torch.tensor(score, device=embeddings.device) for name, score in scores.items()}
