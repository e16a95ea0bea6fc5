"""Residual blocks in three layouts (Sec. 3.1, Fig. 3c)."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.layers.precision import Conv3d
from nl3d.layers.separable import SeparableConv3d
from nl3d.layers.time_padding import TimePadding, time_padded_conv3d

Layout: TypeAlias = Literal["separable", "i3d", "full"]
Shortcut: TypeAlias = Literal["conv", "pad"]


def conv1x1(in_channels: int, out_channels: int, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Conv3d:
    """1x1x1 convolution without bias."""
    return Conv3d(in_channels, out_channels, 1, stride=stride, bias=False)


def conv3x3(
    in_channels: int,
    out_channels: int,
    *,
    time_kernel: int,
    stride: tuple[int, int, int] = (1, 1, 1),
    separable: bool = False,
    time_padding: TimePadding = "zeros",
) -> nn.Module:
    """A ``time_kernel x 3 x 3`` convolution without bias, full or separable."""
    kernel = (time_kernel, 3, 3)
    if separable:
        return SeparableConv3d(in_channels, out_channels, kernel_size=kernel, stride=stride, time_padding=time_padding)
    padding = (time_kernel // 2, 1, 1)
    return time_padded_conv3d(
        in_channels, out_channels, kernel, stride=stride, padding=padding, time_padding=time_padding
    )


class PadShortcut(nn.Module):
    """Shortcut without parameters: every ``stride``-th position, and zeros for the channels that are missing.

    Source: He et al. 2016, arXiv:1512.03385, option A; in Hara et al.'s 3D-ResNets "shortcut type A".

    Args:
        out_channels: Channels to fill up to.
        stride: Stride ``(t, h, w)``.

    Shape:
        - Input: ``(B, C, T, H, W)``
        - Output: ``(B, out_channels, ceil(T / t), ceil(H / h), ceil(W / w))``
    """

    def __init__(self, out_channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = self.stride
        return F.pad(x[:, :, ::t, ::h, ::w], (0, 0, 0, 0, 0, 0, 0, self.out_channels - x.shape[1]))


class _ResidualBlock(nn.Module):
    """What the two blocks share: the shortcut, and the last activation."""

    expansion: ClassVar[int] = 1

    def __init__(
        self, in_channels: int, width: int, *, stride: tuple[int, int, int], shortcut: Shortcut, norm_eps: float
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.out_channels = out_channels
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != (1, 1, 1) or in_channels != out_channels:
            if shortcut == "pad":
                self.downsample = PadShortcut(out_channels, stride)
            else:
                self.downsample = nn.Sequential(
                    conv1x1(in_channels, out_channels, stride), nn.BatchNorm3d(out_channels, eps=norm_eps)
                )

    def residual(self, x: Tensor) -> Tensor:
        raise AssertionError("each block defines its residual")

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.residual(x) + shortcut)


class BasicBlock3d(_ResidualBlock):
    """Two 3x3 convolutions with a temporal kernel in both (``separable``, ``full``) or in the first (``i3d``).

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.1, Fig. 3(c, d), on the basic block of ResNet-18 and -34.

    Args:
        in_channels: Channels of the feature map.
        width: Channels of the block.
        stride: Stride ``(t, h, w)`` of the first convolution.
        layout: See :class:`nl3d.models.resnet3d.ResNet3d`.
        time_kernel: Frames that a temporal kernel spans, odd.
        time_padding: ``"zeros"`` or ``"replicate"``.
        shortcut: ``"conv"`` or ``"pad"``, where the shape changes.
        norm_eps: Epsilon of the batch norms.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: ``(B, width, ceil(T / t), ceil(H / h), ceil(W / w))``
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        layout: Layout = "separable",
        time_kernel: int = 3,
        time_padding: TimePadding = "zeros",
        shortcut: Shortcut = "conv",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(in_channels, width, stride=stride, shortcut=shortcut, norm_eps=norm_eps)
        separable = layout == "separable"
        self.conv1 = conv3x3(
            in_channels, width, time_kernel=time_kernel, stride=stride, separable=separable, time_padding=time_padding
        )
        self.bn1 = nn.BatchNorm3d(width, eps=norm_eps)
        second_kernel = 1 if layout == "i3d" else time_kernel
        self.conv2 = conv3x3(width, width, time_kernel=second_kernel, separable=separable, time_padding=time_padding)
        self.bn2 = nn.BatchNorm3d(width, eps=norm_eps)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck3d(_ResidualBlock):
    """1x1, 3x3, 1x1 with a temporal kernel in the 3x3 (``separable``, ``full``) or in the first 1x1 (``i3d``).

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.1, Fig. 3(c, d); ``i3d`` is Wang et al. 2018, arXiv:1711.07971.

    Args:
        in_channels: Channels of the feature map.
        width: Channels inside of the block; four times as many leave it.
        stride: Stride ``(t, h, w)``: in space on the 3x3, in time on the convolution with the temporal kernel.
        layout: See :class:`nl3d.models.resnet3d.ResNet3d`.
        time_kernel: Frames that the temporal kernel spans, odd.
        time_padding: ``"zeros"`` or ``"replicate"``.
        shortcut: ``"conv"`` or ``"pad"``, where the shape changes.
        norm_eps: Epsilon of the batch norms.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: ``(B, 4 * width, ceil(T / t), ceil(H / h), ceil(W / w))``
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        layout: Layout = "separable",
        time_kernel: int = 3,
        time_padding: TimePadding = "zeros",
        shortcut: Shortcut = "conv",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(in_channels, width, stride=stride, shortcut=shortcut, norm_eps=norm_eps)
        if layout == "i3d":
            time_stride, *space_stride = stride
            self.conv1: nn.Module = time_padded_conv3d(
                in_channels,
                width,
                (time_kernel, 1, 1),
                stride=(time_stride, 1, 1),
                padding=(time_kernel // 2, 0, 0),
                time_padding=time_padding,
            )
            self.conv2 = conv3x3(width, width, time_kernel=1, stride=(1, space_stride[0], space_stride[1]))
        else:
            self.conv1 = conv1x1(in_channels, width)
            self.conv2 = conv3x3(
                width,
                width,
                time_kernel=time_kernel,
                stride=stride,
                separable=layout == "separable",
                time_padding=time_padding,
            )
        self.bn1 = nn.BatchNorm3d(width, eps=norm_eps)
        self.bn2 = nn.BatchNorm3d(width, eps=norm_eps)
        self.conv3 = conv1x1(width, self.out_channels)
        self.bn3 = nn.BatchNorm3d(self.out_channels, eps=norm_eps)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))
