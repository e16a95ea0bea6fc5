"""3D counterparts of single 2D layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.inflate.clips import Behaviour
from nl3d.inflate.kernels import KernelInit, identity_taps, inflate_kernel
from nl3d.layers.precision import convolve
from nl3d.layers.separable import SeparableConv3d, symmetric_padding
from nl3d.layers.time_padding import TimePadding, time_padded_conv3d


@dataclass(frozen=True, kw_only=True)
class TimeKernel:
    """Temporal part of a kernel, for a rule.

    Attributes:
        size: Frames that the kernel spans, odd; 1 for a layer that stays blind to time.
        init: ``"average"`` or ``"center"``.
        separable: Whether a spatial kernel becomes a temporal and a spatial one.
        padding: ``"zeros"`` or ``"replicate"``.
        stride: Stride in time, in frames; more than 1 only where a layer is converted on its own.
    """

    size: int = 3
    init: KernelInit = "average"
    separable: bool = False
    padding: TimePadding = "zeros"
    stride: int = 1


class SameConv3d(nn.Conv3d):
    """Convolution that pads space as TensorFlow's ``SAME`` does: by the input's size, the odd pixel last.

    ``padding`` is ``(t, 0, 0)``; ``replicate`` says whether the frames that pad time are copies or zeros.
    """

    replicate = False

    def pad_space(self, x: Tensor) -> Tensor:
        """Pad the last two axes, of clips or of frames."""
        sides: list[Any] = []
        for size, kernel, stride, dilation in list(
            zip(x.shape[-2:], self.kernel_size[1:], self.stride[1:], self.dilation[1:], strict=True)
        )[::-1]:
            missing = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            sides += [missing // 2, missing - missing // 2]
        return F.pad(x, sides)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102, RUF100 - torch's own name
        x = self.pad_space(input)
        time = int(self.padding[0])
        if self.replicate and time:
            x, time = F.pad(x, (0, 0, 0, 0, time, time), mode="replicate"), 0
        padding = (time, 0, 0)
        return convolve(F.conv3d, x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class OneFrameConv(Behaviour):
    """A 3D convolution of one plane inside a 2D network, run as the 2D convolution that it is."""

    prefix = "Frame"

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 5:
            return super().forward(x)
        conv: Any = self
        padding = conv.padding[1:]
        if isinstance(self, SameConv3d):
            x = self.pad_space(x)
        kernel, stride, dilation = conv.weight[:, :, 0], conv.stride[1:], conv.dilation[1:]
        return convolve(F.conv2d, x, kernel, conv.bias, stride, padding, dilation, conv.groups)


def plain_conv(conv: nn.Conv2d, kernel: TimeKernel) -> nn.Module | None:
    """Twin of a convolution: one 3D kernel, or the separable two. ``None`` if its padding has no 3D counterpart."""
    try:
        height, width = symmetric_padding(conv)
    except ValueError:
        return None
    if conv.padding_mode != "zeros":
        return None
    if kernel.separable and kernel.size > 1:
        return _separable(conv, kernel)
    (kh, kw), (sh, sw), (dh, dw) = _pair(conv.kernel_size), _pair(conv.stride), _pair(conv.dilation)
    with torch.device("meta"):  # no random draws
        twin = time_padded_conv3d(
            conv.in_channels,
            conv.out_channels,
            (kernel.size, kh, kw),
            stride=(kernel.stride, sh, sw),
            padding=(kernel.size // 2, height, width),
            dilation=(1, dh, dw),
            groups=conv.groups,
            bias=False,
            time_padding=kernel.padding,
        )
    return _fill(twin, conv, kernel)


def same_conv(conv: nn.Conv2d, kernel: TimeKernel) -> nn.Module | None:
    """Twin of a convolution with TensorFlow's padding. ``None`` for a separable one, which needs the padding inside."""
    if kernel.separable and kernel.size > 1:
        return None
    (kh, kw), (sh, sw), (dh, dw) = _pair(conv.kernel_size), _pair(conv.stride), _pair(conv.dilation)
    with torch.device("meta"):
        twin = SameConv3d(
            conv.in_channels,
            conv.out_channels,
            (kernel.size, kh, kw),
            (kernel.stride, sh, sw),
            (kernel.size // 2, 0, 0),
            (1, dh, dw),
            conv.groups,
            bias=False,
        )
    twin.replicate = kernel.padding == "replicate"
    return _fill(twin, conv, kernel)


def temporal_conv(layer: Any, kernel: TimeKernel) -> nn.Conv3d:
    """Temporal convolution to stand before a 2D one: each tap is its share of the identity."""
    with torch.device("meta"):
        conv = time_padded_conv3d(
            layer.in_channels,
            layer.in_channels,
            (kernel.size, 1, 1),
            stride=(kernel.stride, 1, 1),
            padding=(kernel.size // 2, 0, 0),
            groups=layer.groups,
            time_padding=kernel.padding,
        )
    weight = layer.weight
    taps = identity_taps(layer.in_channels, kernel.size, groups=layer.groups, init=kernel.init, dtype=weight.dtype).to(
        weight.device
    )
    conv.weight = nn.Parameter(taps, requires_grad=weight.requires_grad)
    return conv.train(layer.training)


def batch_norm(layer: Any, kernel: TimeKernel) -> nn.Module:
    """Twin of a 2D batch or instance norm; its statistics run over time as well."""
    made: Any = {nn.BatchNorm2d: nn.BatchNorm3d, nn.InstanceNorm2d: nn.InstanceNorm3d}[type(layer)]
    with torch.device("meta"):
        twin = made(
            layer.num_features,
            eps=layer.eps,
            momentum=layer.momentum,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
        )
    twin._parameters.update(layer._parameters)
    twin._buffers.update(layer._buffers)
    return twin.train(layer.training)


def pool(layer: Any, kernel: TimeKernel) -> nn.Module:
    """Twin of a 2D pool: it pools frame by frame, and skips frames where time strides."""
    options: dict[str, Any] = {"kernel_size": (1, *_pair(layer.kernel_size)), "ceil_mode": layer.ceil_mode}
    options["stride"] = (kernel.stride, *_pair(layer.stride))
    options["padding"] = (0, *_pair(layer.padding))
    if isinstance(layer, nn.AvgPool2d):
        options |= {"count_include_pad": layer.count_include_pad, "divisor_override": layer.divisor_override}
        return nn.AvgPool3d(**options).train(layer.training)
    options |= {"dilation": (1, *_pair(layer.dilation)), "return_indices": layer.return_indices}
    return nn.MaxPool3d(**options).train(layer.training)


def adaptive_pool(layer: Any, kernel: TimeKernel) -> nn.Module:
    """Twin of a 2D adaptive pool: every frame keeps its own."""
    size = (None, *_pair(layer.output_size))
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return nn.AdaptiveAvgPool3d(size).train(layer.training)
    return nn.AdaptiveMaxPool3d(size, layer.return_indices).train(layer.training)


def _separable(conv: nn.Conv2d, kernel: TimeKernel) -> SeparableConv3d:
    twin = SeparableConv3d.from_conv2d(
        conv, time_kernel=kernel.size, time_stride=kernel.stride, time_padding=kernel.padding
    )
    if kernel.init == "center":
        nn.init.dirac_(twin.temporal.weight, groups=conv.groups)
    return twin.requires_grad_(conv.weight.requires_grad)


def _fill(twin: nn.Conv3d, conv: nn.Conv2d, kernel: TimeKernel) -> nn.Conv3d:
    with torch.no_grad():
        weight = inflate_kernel(conv.weight, kernel.size, init=kernel.init)
    twin.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    twin.bias = conv.bias
    return twin.train(conv.training)


def _pair(value: Any) -> tuple[Any, Any]:
    return (value, value) if value is None or isinstance(value, int) else tuple(value)
