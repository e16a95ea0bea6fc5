"""A full 3D kernel as the nearest separable one (Sec. 3.1, Fig. 3d)."""

from __future__ import annotations

import torch
from torch import Tensor


def separate_kernel(weight: Tensor) -> tuple[Tensor, Tensor, float]:
    """Nearest pair of a temporal and a spatial kernel, in squared error, to a full kernel.

    A temporal kernel of ``in_channels`` to ``in_channels``, then a spatial one, compose to a kernel whose matrix of
    (output channel, space) by (input channel, time) has at most rank ``in_channels``; and any such matrix is composed
    by some pair. So the best pair is the matrix's truncated singular value decomposition.

    Args:
        weight: The full kernel.

    Shape:
        - ``weight``: ``(out_channels, in_channels, t, h, w)``
        - Output: ``(in_channels, in_channels, t, 1, 1)``, ``(out_channels, in_channels, 1, h, w)``, and the share of
          the full kernel's sum of squares that the pair keeps: 1 if it is exact

    Example:
        >>> temporal, spatial, kept = separate_kernel(torch.ones(8, 4, 3, 3, 3))
        >>> temporal.shape, spatial.shape, round(kept, 6)
        (torch.Size([4, 4, 3, 1, 1]), torch.Size([8, 4, 1, 3, 3]), 1.0)
    """
    channels, rank, frames, height, width = weight.shape
    matrix = weight.double().permute(0, 3, 4, 1, 2).reshape(channels * height * width, rank * frames)
    energies, directions = torch.linalg.eigh(matrix.T @ matrix)  # ascending
    rows = directions[:, -rank:].T  # orthonormal: the best subspace of the given rank
    temporal = rows.reshape(rank, rank, frames, 1, 1)
    spatial = (matrix @ rows.T).reshape(channels, height, width, rank).permute(0, 3, 1, 2).unsqueeze(2)
    if weight.is_meta:
        kept = float("nan")
    else:
        total = energies.sum().item()
        kept = energies[-rank:].sum().item() / total if total > 0 else 1.0
    return temporal.to(weight.dtype).contiguous(), spatial.to(weight.dtype).contiguous(), min(kept, 1.0)
