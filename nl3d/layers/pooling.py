"""Pool a feature map to one vector per clip."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from nl3d.layers.shapes import check_choice

Pooling: TypeAlias = Literal["avg", "gem", "frame_max"]


class ClipPool(nn.Module):
    """Pool a feature map over time and space.

    Args:
        kind: ``"avg"`` takes the mean over T, H and W (the paper, Sec. 3). ``"gem"`` takes the generalised mean,
            the p-th root of the mean p-th power, with p learnt (Radenovic et al. 2018, arXiv:1711.02512).
            ``"frame_max"`` takes the maximum over each frame and the mean over frames.

    Shape:
        - Input: ``(B, C, T, H, W)``; ``(B, C)`` passes through
        - Output: ``(B, C)``

    Example:
        >>> ClipPool("frame_max")(torch.rand(2, 16, 4, 8, 4)).shape
        torch.Size([2, 16])
    """

    def __init__(self, kind: Pooling = "avg") -> None:
        super().__init__()
        check_choice(kind, ("avg", "gem", "frame_max"), name="pool")
        self.kind = kind
        if kind == "gem":
            self.p = nn.Parameter(torch.empty(1))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.kind == "gem":
            nn.init.constant_(self.p, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x
        if self.kind == "avg":
            return x.mean((2, 3, 4))
        if self.kind == "frame_max":
            return x.amax((3, 4)).mean(2)
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # the power overflows a half
        return x.clamp(min=1e-6).pow(self.p).mean((2, 3, 4)).pow(1 / self.p)

    def extra_repr(self) -> str:
        return repr(self.kind)
