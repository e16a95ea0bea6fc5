"""A 3D convolution that can pad the time axis with copies of the first and last frame."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.layers.precision import Conv3d, convolve
from nl3d.layers.shapes import check_choice

TimePadding: TypeAlias = Literal["zeros", "replicate"]


class TimePaddedConv3d(nn.Conv3d):
    """Convolution whose time axis is padded with the clip's own end frames; space is padded with zeros as usual.

    With zeros, the first and last frames of a clip lose part of a temporal kernel's response, so that a still clip does
    not give the image network's answer there. With copies of the end frames it does, on every frame.

    Parameters, names and shapes are those of :class:`torch.nn.Conv3d`: the two load each other's state dict.

    Args:
        args: As for :class:`torch.nn.Conv3d`.
        kwargs: As for :class:`torch.nn.Conv3d`; ``padding`` is ``(t, h, w)``.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: as of :class:`torch.nn.Conv3d` with the same arguments
    """

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, time_padding='replicate'"

    def forward(self, input: Tensor) -> Tensor:
        time, height, width = (int(pad) for pad in self.padding)
        frames = F.pad(input, (0, 0, 0, 0, time, time), mode="replicate")
        padding = (0, height, width)
        return convolve(F.conv3d, frames, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def time_padded_conv3d(
    in_channels: int,
    out_channels: int,
    kernel_size: tuple[int, int, int],
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int] = (0, 0, 0),
    dilation: tuple[int, int, int] = (1, 1, 1),
    groups: int = 1,
    bias: bool = False,
    time_padding: TimePadding = "zeros",
) -> nn.Conv3d:
    """Build the plain convolution, or the one with replicated end frames where there is time to pad."""
    check_choice(time_padding, ("zeros", "replicate"), name="time_padding")
    kind = TimePaddedConv3d if time_padding == "replicate" and padding[0] else Conv3d
    return kind(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )
