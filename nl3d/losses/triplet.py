"""Triplet loss with the hardest positive and the hardest negative of the batch (Sec. 3.3, Eq. 7)."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.losses.checks import check_batch
from nl3d.losses.gather import check_on_all_ranks, collective_device, gather_batch, is_distributed


class BatchHardTriplet(nn.Module):
    """Require each anchor to be closer to its hardest positive than to its hardest negative, by a margin.

    Every row is an anchor once. Distances are Euclidean, not squared, and embeddings are used unnormalised: to compare
    directions, normalise them first. Half-precision rows are compared in float32, under autocast too. A distance of
    zero, as between two equal rows, has the gradient zero. Pairs are mined in float64 where float32 would lose them,
    as in batches whose embeddings form clouds far apart.

    With ``gather``, the batch is that of all ranks of the default process group, in the order of the ranks; the ranks
    may have unequal numbers of rows. Every rank returns the loss of the whole batch. The convention for gradients is
    that of ``DistributedDataParallel`` (and FSDP), which average them over the ranks: each rank's embeddings get the
    number of ranks times the single-process gradient, so that the average over ranks of the parameters' gradients is
    the single-process one on the concatenated batch. All ranks have to do the same with the loss. An error on one rank
    is raised on all. Without a process group, or with one rank, ``gather`` changes nothing.

    Under ``torch.compile`` values are not looked at: an anchor without a positive or a negative makes the loss NaN
    instead of an error, and ``gather`` needs as many rows on every rank.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.3, Eq. 7, after Hermans et al. 2017, arXiv:1703.07737. Eq. 7 sums
    over the anchors; the mean is the default here, so that the weight beside Eq. 8, which is a mean, does not grow with
    the batch.

    Args:
        margin: Margin m of Eq. 7, a distance; or ``"soft"`` for ``log(1 + exp(gap))`` in place of ``max(0, m + gap)``.
        reduction: ``"mean"`` over the anchors, or ``"sum"`` as in the paper.
        gather: Whether to mine in the rows of all ranks.

    Shape:
        - embeddings: ``(B, D)``
        - pids: ``(B,)``, integers
        - Output: scalar

    Raises:
        TypeError: If ``margin``, ``embeddings`` or ``pids`` are of the wrong kind.
        ValueError: If an argument is out of range, if shapes or devices do not fit, if a value is NaN, infinite or so
            large that its square is, or if an anchor has no positive or no negative.

    Example:
        >>> loss = BatchHardTriplet(margin=0.3)
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
        >>> loss(embeddings, torch.tensor([7, 7, 9, 9]))
        tensor(0.)
        >>> loss(embeddings, torch.tensor([7, 9, 7, 9]))
        tensor(2.3000)
    """

    def __init__(
        self,
        margin: float | Literal["soft"] = 0.3,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        gather: bool = False,
    ) -> None:
        super().__init__()
        rule = "margin must be 'soft' or a finite number of at least 0"
        if isinstance(margin, bool) or not isinstance(margin, int | float | str):
            raise TypeError(f"{rule}, got {margin!r}")
        if margin != "soft" and (isinstance(margin, str) or not math.isfinite(margin) or margin < 0):
            raise ValueError(f"{rule}, got {margin!r}")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be one of 'mean', 'sum', got {reduction!r}")
        self.margin = margin
        self.reduction = reduction
        self.gather = gather

    def forward(self, embeddings: Tensor, pids: Tensor) -> Tensor:
        gather = self.gather and is_distributed()
        if gather and not torch.compiler.is_compiling():
            check_on_all_ranks(partial(check_batch, embeddings, pids), collective_device(embeddings))
        else:
            check_batch(embeddings, pids)
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
            if gather:
                rows, pids = gather_batch(rows, pids)
            positive, negative, complete = hardest_pairs(rows, pids)  # (B,) each
            if not torch.compiler.is_compiling() and not complete.all():
                refuse_batch(rows, pids)
            # Only the chosen pairs, as differences: exact where rows are close, and B distances instead of B x B.
            gap = distance(rows, rows[positive]) - distance(rows, rows[negative])
            terms = F.softplus(gap) if self.margin == "soft" else F.relu(gap + self.margin)
            terms = terms.where(complete, math.nan)
            return terms.mean() if self.reduction == "mean" else terms.sum()

    def extra_repr(self) -> str:
        return f"margin={self.margin!r}, reduction={self.reduction!r}, gather={self.gather}"


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance of each row to its counterpart; the gradient at zero is zero."""
    return torch.linalg.vector_norm(first - second, dim=1)


@torch.no_grad()
def hardest_pairs(rows: Tensor, pids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of each row's farthest positive and nearest negative, and whether it has both and a finite square."""
    same = pids[:, None] == pids
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    squared_distances, is_exact = _squared_distances(rows, itself)
    inexact = torch.compiler.is_compiling() or not is_exact  # a compiled graph cannot look at the values
    if inexact and rows.device.type != "mps":  # which has no float64
        squared_distances, _ = _squared_distances(rows.double(), itself)
    positives = same & ~itself
    positive = squared_distances.masked_fill(~positives, -math.inf).argmax(1)
    negative = squared_distances.masked_fill(same, math.inf).argmin(1)
    is_finite = rows.square().sum(1).isfinite()
    return positive, negative, positives.any(1) & ~same.all(1) & is_finite


def _squared_distances(rows: Tensor, itself: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances by one product, and whether rounding leaves four digits of the smallest."""
    centred = rows - rows.mean(0)  # keeps digits where all rows lie far from the origin
    squares = centred.square().sum(1)
    squared = squares[:, None] + squares - 2 * centred @ centred.T  # (B, B)
    return squared, squared.masked_fill(itself, math.inf).amin() * 100 > squares.amax()


def refuse_batch(rows: Tensor, pids: Tensor) -> None:
    """Say what is wrong with a batch in which not every anchor makes a triplet."""
    unfit = int((~rows.isfinite()).sum())
    if unfit:
        raise ValueError(
            f"embeddings must be finite, got {unfit} NaN or infinite values; lower the learning rate or check the input"
        )
    if not rows.square().sum(1).isfinite().all():
        raise ValueError(
            f"embeddings must have finite squares, got values up to {float(rows.detach().abs().max()):.1e}; "
            "lower the learning rate or normalise them"
        )
    distinct, counts = torch.unique(pids, return_counts=True)
    if len(distinct) == 1:
        raise ValueError(
            f"BatchHardTriplet needs two identities in the batch, but all {len(pids)} rows are pid {int(distinct[0])};"
            " draw batches of P identities times K tracklets"
        )
    lonely = distinct[counts == 1].tolist()
    others = f" (and {len(lonely) - 1} more pids)" if len(lonely) > 1 else ""
    raise ValueError(
        f"BatchHardTriplet needs two rows of every pid in the batch, but pid {lonely[0]} has one{others};"
        " draw batches of P identities times K tracklets"
    )
