"""Identity loss plus triplet loss (Sec. 3.3, Eq. 10)."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.losses.checks import check_batch, check_tensor
from nl3d.losses.gather import check_on_all_ranks, collective_device, is_distributed
from nl3d.losses.triplet import BatchHardTriplet


class ReIDOutputLike(Protocol):
    """What the loss reads of a network's output; :class:`nl3d.ReIDOutput` has it."""

    @property
    def features(self) -> Tensor: ...

    @property
    def embedding(self) -> Tensor: ...

    @property
    def logits(self) -> Tensor | None: ...


class ReIDLossParts(NamedTuple):
    """The loss and its two terms, each a scalar."""

    total: Tensor
    identity: Tensor
    triplet: Tensor


class ReIDLoss(nn.Module):
    """Label-smoothed cross entropy of the logits plus :class:`BatchHardTriplet` of the features or the embedding.

    Calling it gives the total, :meth:`parts` gives the total and both terms, for a log.

    The target is smoothed, ``(1 - e) * onehot + e / N``, as in the method that the paper cites (Szegedy et al. 2016).
    Eq. 9 as printed smooths the prediction inside the logarithm instead, which is taken for a slip.

    With ``gather``, the triplets are mined across ranks and the identity term stays the mean over the rank's own rows:
    averaged over ranks, as ``DistributedDataParallel`` does, the gradients are those of the loss on the concatenated
    batch, provided that every rank has as many rows. An error on one rank is raised on all.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.3, Eq. 7-10; smoothing after Szegedy et al. 2016,
    arXiv:1512.00567, Sec. 7. The paper names neither the smoothing, the margin nor the features that the triplets
    compare: 0.1, 0.3 and those before the bottleneck are what its first author's code of that year used.

    Args:
        margin: As for :class:`BatchHardTriplet`.
        label_smoothing: Share e of the target that is spread over all classes.
        triplet_on: ``"features"``, pooled and before the bottleneck, or ``"embedding"``, after it.
        triplet_reduction: ``"mean"`` over the anchors, or ``"sum"`` as in Eq. 7.
        gather: As for :class:`BatchHardTriplet`.

    Shape:
        - output: features ``(B, C)``, embedding ``(B, D)``, logits ``(B, num_classes)``
        - pids: ``(B,)``, integers from 0 to ``num_classes - 1``
        - Output: scalar

    Raises:
        TypeError: If ``output`` lacks what is read of it, or something is of the wrong kind.
        ValueError: If there are no logits, if shapes do not fit, if a pid is no class, or as
            :class:`BatchHardTriplet` says.

    Example:
        >>> from nl3d import ReIDOutput
        >>> output = ReIDOutput(torch.randn(4, 32), torch.randn(4, 8), torch.randn(4, 10))
        >>> ReIDLoss(triplet_on="embedding")(output, torch.tensor([3, 3, 5, 5])).shape
        torch.Size([])
    """

    def __init__(
        self,
        margin: float | Literal["soft"] = 0.3,
        *,
        label_smoothing: float = 0.1,
        triplet_on: Literal["features", "embedding"] = "features",
        triplet_reduction: Literal["mean", "sum"] = "mean",
        gather: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing!r}")
        if triplet_on not in ("features", "embedding"):
            raise ValueError(f"triplet_on must be one of 'features', 'embedding', got {triplet_on!r}")
        self.label_smoothing = label_smoothing
        self.triplet_on = triplet_on
        self.triplet = BatchHardTriplet(margin, reduction=triplet_reduction, gather=gather)

    def forward(self, output: ReIDOutputLike, pids: Tensor) -> Tensor:
        return self.parts(output, pids).total

    def parts(self, output: ReIDOutputLike, pids: Tensor) -> ReIDLossParts:
        """Total, identity and triplet loss; the total is the one to differentiate."""
        check = partial(check_output, output, pids, triplet_on=self.triplet_on)
        if self.triplet.gather and is_distributed() and not torch.compiler.is_compiling():
            check_on_all_ranks(check, collective_device(pids))
        else:
            check()
        rows, logits = getattr(output, self.triplet_on), output.logits
        assert logits is not None
        triplet = self.triplet(rows, pids)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        identity = F.cross_entropy(logits, pids.long(), label_smoothing=self.label_smoothing)
        return ReIDLossParts(identity + triplet, identity, triplet)

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}, triplet_on={self.triplet_on!r}"


def check_output(output: ReIDOutputLike, pids: Tensor, *, triplet_on: str) -> None:
    """Refuse an output without logits or rows to compare, and identities that are no class."""
    missing = [name for name in (triplet_on, "logits") if not hasattr(output, name)]
    if missing:
        kind = type(output).__name__
        raise TypeError(f"output must have {triplet_on} and logits, got {kind} without {' and '.join(missing)}")
    if output.logits is None:
        raise ValueError("output must have logits, got None; build the network with num_classes")
    check_batch(getattr(output, triplet_on), pids, name=triplet_on)
    check_tensor(output.logits, "logits must be a tensor (B, num_classes)")
    shape = tuple(output.logits.shape)
    if len(shape) != 2 or shape[0] != len(pids) or shape[1] == 0:
        raise ValueError(f"logits must be (B, num_classes) with B={len(pids)}, got {shape}")
    if not output.logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {output.logits.dtype}")
    if torch.compiler.is_compiling():
        return
    outside = pids[(pids < 0) | (pids >= shape[1])]
    if len(outside):
        raise ValueError(
            f"pids must be classes from 0 to {shape[1] - 1}, got {int(outside[0])}; number the identities consecutively"
        )
