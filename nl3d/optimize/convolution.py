"""Forms of one convolution, of which the fastest is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.inflate.clips import Behaviour, behave
from nl3d.layers.precision import Conv3d
from nl3d.optimize.fold import layer_type

Form: TypeAlias = Literal["direct", "onednn", "frames", "matmul", "shifted"]
"""How a convolution is computed.

``"direct"`` is PyTorch's own call. ``"onednn"`` is oneDNN's convolution with bias and ReLU in one pass, on CPUs.
``"frames"`` folds T into the batch of a 2D convolution. ``"matmul"`` is a 1x1x1 convolution as one matrix product.
``"shifted"`` sums one matrix product per tap of a ``t x 1 x 1`` kernel over shifted frames.
"""

_ONEDNN = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)


class FormedConvolution(Behaviour):
    """A convolution computed in one of several forms, with the ReLU that follows it."""

    prefix = "Formed"
    form: Form = "direct"
    relu = False

    def _conv_forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002, RUF100
        plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(input.device.type)
        if plain or self.form == "direct" or input.dtype != torch.float32:
            output = super()._conv_forward(input, weight, bias)  # type: ignore[misc]
            return output.relu_() if self.relu else output
        return _FORMS[self.form](self, channels_last(input))


def form_convolutions(network: nn.Module) -> list[FormedConvolution]:
    """Let each convolution be computed in several forms, in place; return those that can be."""
    formed: list[Any] = []
    for module in list(network.modules()):
        if layer_type(module) in (nn.Conv2d, nn.Conv3d, Conv3d) and module.padding_mode == "zeros":
            if not isinstance(module.padding, str):
                behave(module, FormedConvolution)
                formed.append(module)
    return formed


def set_form(layer: Any, form: Form) -> None:
    """Choose a form; all but ``"direct"`` keep the kernel with its channels last in memory."""
    layer.form = form
    layer.weight = nn.Parameter(channels_last(layer.weight.detach()), requires_grad=False)


def forms_of(layer: Any, device: torch.device) -> tuple[Form, ...]:
    """Return the forms that give the layer's output on a device, the one chosen without a measurement first."""
    forms: list[Form] = ["onednn"] if device.type == "cpu" and has_onednn() else []
    forms.append("direct")
    point = all(size == 1 for size in layer.kernel_size) and all(pad == 0 for pad in layer.padding)
    if point and all(step == 1 for step in layer.stride) and layer.groups == 1:
        forms.append("matmul")
    if len(layer.kernel_size) == 3:
        frames, *space = layer.kernel_size
        if (frames, layer.stride[0], layer.padding[0]) == (1, 1, 0):
            forms.append("frames")
        plain = layer.stride == layer.dilation == (1, 1, 1) and layer.groups == 1
        if plain and frames > 1 and space == [1, 1] and layer.padding == (frames // 2, 0, 0):
            forms.append("shifted")
    return tuple(forms)


def has_onednn() -> bool:
    """Whether this build of PyTorch has oneDNN's fused convolution."""
    return _ONEDNN is not None and torch.backends.mkldnn.is_available()


def channels_last(x: Tensor) -> Tensor:
    """Return ``(N, C, ...)`` with the channels last in memory."""
    return x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)


def _onednn(layer: Any, x: Tensor) -> Tensor:
    activation = "relu" if layer.relu else "none"
    geometry = layer.padding, layer.stride, layer.dilation, layer.groups
    return torch.ops.mkldnn._convolution_pointwise(x, layer.weight, layer.bias, *geometry, activation, [], "")


def _frames(layer: Any, x: Tensor) -> Tensor:
    images = x.transpose(1, 2).flatten(0, 1)  # a view, (B*T, C, H, W)
    geometry = layer.stride[1:], layer.padding[1:], layer.dilation[1:], layer.groups
    maps = F.conv2d(images, layer.weight[:, :, 0], layer.bias, *geometry)
    return _activate(layer, maps.unflatten(0, (x.shape[0], -1)).transpose(1, 2))


def _matmul(layer: Any, x: Tensor) -> Tensor:
    rows = x.movedim(1, -1)  # a view, (B, ..., C)
    return _activate(layer, F.linear(rows, layer.weight.flatten(1), layer.bias).movedim(-1, 1))


def _shifted(layer: Any, x: Tensor) -> Tensor:
    rows = x.movedim(1, -1)  # (B, T, H, W, C)
    frames, middle = x.shape[2], layer.kernel_size[0] // 2
    taps = layer.weight[:, :, :, 0, 0].unbind(2)
    output = F.linear(rows, taps[middle], layer.bias)
    for place, tap in enumerate(taps):
        shift = place - middle
        if shift and abs(shift) < frames:
            source = rows[:, max(shift, 0) : frames + min(shift, 0)]
            output[:, max(-shift, 0) : frames - max(shift, 0)] += F.linear(source, tap)
    return _activate(layer, output.movedim(-1, 1))


def _activate(layer: Any, x: Tensor) -> Tensor:
    return x.relu_() if layer.relu else x


_FORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "onednn": _onednn,
    "frames": _frames,
    "matmul": _matmul,
    "shifted": _shifted,
}
