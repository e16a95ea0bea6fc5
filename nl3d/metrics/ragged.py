"""Lists of unequal lengths, laid end to end."""

from __future__ import annotations

import torch
from torch import Tensor


def expand_ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Spell out the ranges ``starts[i] ... starts[i] + lengths[i] - 1``.

    Shape:
        - starts, lengths: ``(N,)``
        - Output: for every element which range it is of, and its value, each ``(lengths.sum(),)``
    """
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    return owner, starts[owner] + positions_in_runs(lengths)


def positions_in_runs(lengths: Tensor) -> Tensor:
    """``0 ... lengths[i] - 1`` for each i, end to end."""
    ends = lengths.cumsum(0)
    total = torch.arange(int(ends[-1]) if len(ends) else 0, device=lengths.device)
    return total - torch.repeat_interleave(ends - lengths, lengths)
