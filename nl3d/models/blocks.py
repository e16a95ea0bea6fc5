"""Residual blocks (Sec. 3.1, Fig. 3c)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.layers.time_padding import TimePadding
from nl3d.models.layouts import conv1x1, find_layout

Shortcut: TypeAlias = Literal["conv", "pad"]


class PadShortcut(nn.Module):
    """Shortcut without parameters: every ``stride``-th position, and zeros for the channels that are missing.

    Source: He et al. 2016, arXiv:1512.03385, option A; in Hara et al.'s 3D-ResNets "shortcut type A".

    Shape:
        - Input: ``(B, C, T, H, W)``
        - Output: ``(B, out_channels, ceil(T / t), ceil(H / h), ceil(W / w))``
    """

    def __init__(self, out_channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def extra_repr(self) -> str:
        return f"{self.out_channels}, stride={self.stride}"

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = self.stride
        return F.pad(x[:, :, ::t, ::h, ::w], (0, 0, 0, 0, 0, 0, 0, self.out_channels - x.shape[1]))


class _ResidualBlock(nn.Module):
    """Two convolutions of a layout, the shortcut, and the last activation.

    Args:
        in_channels: Channels of the feature map.
        width: Channels of both convolutions; ``expansion`` times as many leave the block.
        stride: Stride ``(t, h, w)``; a bottleneck strides space in its 3x3, time where the temporal kernel is.
        layout: Name of a :class:`~nl3d.models.layouts.Layout`.
        time_kernel: Frames that a temporal kernel spans, odd.
        time_padding: ``"zeros"`` or ``"replicate"``.
        shortcut: ``"conv"`` or ``"pad"``, where the shape changes.
        norm_eps: Epsilon of the batch norms.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: ``(B, expansion * width, ceil(T / t), ceil(H / h), ceil(W / w))``
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        layout: str = "separable",
        time_kernel: int = 3,
        time_padding: TimePadding = "zeros",
        shortcut: Shortcut = "conv",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels = width * self.expansion
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != (1, 1, 1) or in_channels != out_channels:
            if shortcut == "pad":
                self.downsample = PadShortcut(out_channels, stride)
            else:
                self.downsample = nn.Sequential(
                    conv1x1(in_channels, out_channels, stride), nn.BatchNorm3d(out_channels, eps=norm_eps)
                )
        first, second = find_layout(layout).convolutions(
            in_channels,
            width,
            bottleneck=self.expansion > 1,
            stride=stride,
            time_kernel=time_kernel,
            padding=time_padding,
        )
        self.conv1 = first
        self.bn1 = nn.BatchNorm3d(width, eps=norm_eps)
        self.conv2 = second
        self.bn2 = nn.BatchNorm3d(width, eps=norm_eps)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.residual(x) + shortcut)


class BasicBlock3d(_ResidualBlock):
    """Two 3x3 convolutions; the layout says which have a temporal kernel.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.1, Fig. 3(c, d), on the basic block of ResNet-18 and -34.
    """


class Bottleneck3d(_ResidualBlock):
    """1x1, 3x3, 1x1; the layout says which of the first two has a temporal kernel.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.1, Fig. 3(c, d).
    """

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, width: int, *, norm_eps: float = 1e-5, **options: Any) -> None:
        super().__init__(in_channels, width, norm_eps=norm_eps, **options)
        self.conv3 = conv1x1(width, self.out_channels)
        self.bn3 = nn.BatchNorm3d(self.out_channels, eps=norm_eps)

    def residual(self, x: Tensor) -> Tensor:
        return self.bn3(self.conv3(self.relu(super().residual(x))))
