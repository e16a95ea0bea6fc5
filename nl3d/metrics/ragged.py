"""Lists of unequal lengths, end to end."""

from __future__ import annotations

import torch
from torch import Tensor


def expand_ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Spell out the ranges ``starts[i] ... starts[i] + lengths[i] - 1``.

    Shape:
        - starts, lengths: ``(N,)``
        - Output: for every element which range it is of, and its value, each ``(lengths.sum(),)``
    """
    ends = lengths.cumsum(0)
    total = int(lengths.sum())
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths, output_size=total)
    return owner, torch.arange(total, device=lengths.device) + (starts - ends + lengths)[owner]
