"""Float32 for the convolutions that CPUs compute wrongly in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (
    torch.conv1d, torch.conv2d, torch.conv3d, torch.convolution,
    torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default,
    torch.ops.aten.convolution.default,
)  # fmt: skip


def float32_on_small_maps(clips: Tensor) -> AbstractContextManager[Any]:
    """Compute the bfloat16 convolutions of the block by :func:`convolve`, in any network.

    Enter autocast first. The context does not see into TorchScript modules, nor into the backward pass: where gradient
    checkpointing recomputes a convolution that it has changed, PyTorch raises a ``CheckpointError``.

    Example:
        >>> layer, images = torch.nn.Conv2d(128, 128, 3, stride=2, padding=1), torch.rand(1, 128, 4, 2)
        >>> with torch.autocast("cpu", torch.bfloat16), float32_on_small_maps(images):
        ...     layer(images).dtype
        torch.bfloat16
    """
    return _Float32OnSmallMaps() if _in_bfloat16(clips) else nullcontext()


class _Float32OnSmallMaps(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CONVOLUTIONS:
            return convolve(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Conv3d(nn.Conv3d):
    """:class:`torch.nn.Conv3d` by :func:`convolve`: without wrong bfloat16 on CPUs."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002, RUF100
        return convolve(torch.conv3d, input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def convolve(
    function: Callable[..., Tensor],
    input: Tensor,  # noqa: A002, RUF100 - torch's own name
    weight: Tensor,
    bias: Tensor | None = None,
    *arguments: Any,
    **options: Any,
) -> Tensor:
    """Call a convolution of PyTorch, in float32 where bfloat16 on a CPU cannot be trusted.

    PyTorch 2.6 to 2.15 computes some bfloat16 convolutions wrongly, or reads and writes outside of its memory, where
    the kernel is larger than its input on some axis. On x86 CPUs with AMX, outputs of strided convolutions are wrong;
    on CPUs with AVX512_BF16 alone, gradients of the kernel. With a margin, every convolution whose kernel times stride
    covers an axis is computed in float32 and rounded, both under autocast and with bfloat16 weights.
    """
    if not (_in_bfloat16(input) and _covers_an_axis(input, weight, *arguments[:3], **options)):
        return function(input, weight, bias, *arguments, **options)
    with torch.autocast("cpu", enabled=False):
        bias = None if bias is None else bias.float()
        output = function(input.float(), weight.float(), bias, *arguments, **options)
    return output.to(torch.bfloat16)


def _in_bfloat16(tensor: Tensor) -> bool:
    """Whether a convolution of this tensor runs in bfloat16 on the CPU."""
    if tensor.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu") and tensor.dtype != torch.float64:
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return tensor.dtype == torch.bfloat16


def _covers_an_axis(
    input: Tensor,  # noqa: A002, RUF100
    weight: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    **options: Any,
) -> bool:
    """Whether the kernel, times its stride, is as large as the input on some axis."""
    axes = weight.ndim - 2
    steps, spacings = (
        [value] * axes if isinstance(value, int) else list(value) * (axes // len(value)) for value in (stride, dilation)
    )
    return any(
        kernel > 1 and size <= (spacing * (kernel - 1) + 1) * step
        for size, kernel, step, spacing in zip(input.shape[-axes:], weight.shape[2:], steps, spacings, strict=True)
    )
