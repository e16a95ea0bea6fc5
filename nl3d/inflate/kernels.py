"""A 2D kernel becomes a 3D one (Sec. 3.1)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from nl3d.layers.shapes import check_choice

KernelInit: TypeAlias = Literal["average", "center"]


def inflate_kernel(weight: Tensor, time_kernel: int, *, init: KernelInit = "average") -> Tensor:
    """Spread a 2D kernel over ``time_kernel`` planes, or put it into the middle one between zeros (``"center"``).

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.1: every plane is the 2D kernel divided by t.

    Shape:
        - ``weight``: ``(out_channels, in_channels / groups, h, w)``
        - Output: ``(out_channels, in_channels / groups, time_kernel, h, w)``; memory is shared at ``time_kernel=1``
    """
    check_choice(init, ("average", "center"), name="init")
    planes = weight.unsqueeze(2)
    if time_kernel == 1:
        return planes
    if init == "average":
        return (planes / time_kernel).expand(-1, -1, time_kernel, -1, -1).contiguous()
    kernel = planes.new_zeros(*planes.shape[:2], time_kernel, *planes.shape[3:])
    kernel[:, :, time_kernel // 2] = weight
    return kernel


def identity_taps(
    channels: int, time_kernel: int, *, groups: int = 1, init: KernelInit = "average", dtype: torch.dtype | None = None
) -> Tensor:
    """Temporal half of a separable kernel that, before the 2D kernel, gives what :func:`inflate_kernel` gives.

    Shape:
        - Output: ``(channels, channels / groups, time_kernel, 1, 1)``
    """
    point = torch.empty(channels, channels // groups, 1, dtype=dtype)
    nn.init.dirac_(point, groups=groups)
    return inflate_kernel(point.unsqueeze(-1), time_kernel, init=init)
