"""Layouts: which convolutions of a residual block span time (Sec. 3.1, Fig. 3c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from torch import nn

from nl3d.layers.appearance import AppearancePreservingConv3d
from nl3d.layers.precision import Conv3d
from nl3d.layers.separable import SeparableConv3d
from nl3d.layers.shapes import check_choice
from nl3d.layers.time_padding import TimePadding, time_padded_conv3d

Stride = tuple[int, int, int]


class Layout:
    """Kernels of a layout, and how they are recognised in a file. Subclass it, and call :func:`register_layout`.

    A kernel of an image network fills any :class:`torch.nn.Conv3d` by inflation. A module of another kind in its place
    needs a method ``inflate(key, tensor, init=...)`` that maps the image layer's tensor ``key`` to its own tensors.
    """

    name: ClassVar[str]

    def convolutions(
        self, in_channels: int, width: int, *, bottleneck: bool, stride: Stride, time_kernel: int, padding: TimePadding
    ) -> tuple[nn.Module, nn.Module]:
        """First two convolutions of a residual block, without bias.

        Args:
            in_channels: Channels of the feature map.
            width: Channels that both convolutions give.
            bottleneck: Whether they are 1x1 and 3x3 in space, rather than 3x3 twice.
            stride: Stride ``(t, h, w)`` of both together; a bottleneck strides space in the 3x3.
            time_kernel: Frames that a kernel spans, odd.
            padding: Padding of time, ``"zeros"`` or ``"replicate"``.
        """
        raise NotImplementedError

    def spans_time(self, stage: int, number: int) -> bool:
        """Whether block ``number`` of stage ``stage``, both from 0, spans time if one ``time_kernel`` is given."""
        return True

    def stem_time_kernel(self, time_kernel: int) -> int:
        """Frames that the stem's kernel spans if only ``time_kernel`` is given."""
        return time_kernel

    def read(
        self, first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], *, bottleneck: bool, separable: bool
    ) -> Sequence[Sequence[int]] | None:
        """Recognise the layout of a file whose kernels span time.

        Args:
            first: Frames that the first convolution of each block of each stage spans.
            second: The same of the second convolution.
            bottleneck: Whether the blocks are bottlenecks.
            separable: Whether the kernels are separated into ``temporal`` and ``spatial``.

        Returns:
            ``time_kernel`` block by block, or ``None`` if the file has another layout.
        """
        return None


class Separable(Layout):
    """Each 3x3 becomes a :class:`~nl3d.SeparableConv3d` (the paper's)."""

    name = "separable"

    def convolutions(
        self, in_channels: int, width: int, *, bottleneck: bool, stride: Stride, time_kernel: int, padding: TimePadding
    ) -> tuple[nn.Module, nn.Module]:
        def separable(channels: int, stride: Stride) -> nn.Module:
            kernel = (time_kernel, 3, 3)
            return SeparableConv3d(channels, width, kernel_size=kernel, stride=stride, time_padding=padding)

        if bottleneck:
            return conv1x1(in_channels, width), separable(width, stride)
        return separable(in_channels, stride), separable(width, (1, 1, 1))

    def read(
        self, first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], *, bottleneck: bool, separable: bool
    ) -> Sequence[Sequence[int]] | None:
        return second if separable else None


class I3d(Layout):
    """A bottleneck's 1x1 becomes t x 1 x 1, or a basic block's first 3x3 t x 3 x 3, in every other block.

    Source: Wang et al. 2018, arXiv:1711.07971: all blocks of layer1, even ones of layer2 and layer3, odd of layer4.
    """

    name = "i3d"

    def convolutions(
        self, in_channels: int, width: int, *, bottleneck: bool, stride: Stride, time_kernel: int, padding: TimePadding
    ) -> tuple[nn.Module, nn.Module]:
        if not bottleneck:
            return conv3x3(in_channels, width, time_kernel, stride, padding), conv3x3(width, width)
        first = time_padded_conv3d(
            in_channels,
            width,
            (time_kernel, 1, 1),
            stride=(stride[0], 1, 1),
            padding=(time_kernel // 2, 0, 0),
            time_padding=padding,
        )
        return first, conv3x3(width, width, stride=(1, *stride[1:]))

    def spans_time(self, stage: int, number: int) -> bool:
        return number % 2 in ((0, 1), (0,), (0,), (1,))[stage]

    def stem_time_kernel(self, time_kernel: int) -> int:
        return 5 if time_kernel > 1 else 1

    def read(
        self, first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], *, bottleneck: bool, separable: bool
    ) -> Sequence[Sequence[int]] | None:
        return first if not separable and spans(first) and not spans(second) else None


class Full(Layout):
    """Each 3x3 becomes t x 3 x 3."""

    name = "full"

    def convolutions(
        self, in_channels: int, width: int, *, bottleneck: bool, stride: Stride, time_kernel: int, padding: TimePadding
    ) -> tuple[nn.Module, nn.Module]:
        if bottleneck:
            return conv1x1(in_channels, width), conv3x3(width, width, time_kernel, stride, padding)
        first = conv3x3(in_channels, width, time_kernel, stride, padding)
        return first, conv3x3(width, width, time_kernel, padding=padding)

    def read(
        self, first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], *, bottleneck: bool, separable: bool
    ) -> Sequence[Sequence[int]] | None:
        return second if not separable and spans(second) and not (bottleneck and spans(first)) else None


class AppearancePreserving(Layout):
    """Each 3x3 becomes an :class:`~nl3d.layers.appearance.AppearancePreservingConv3d`, in few blocks.

    Every other block of layer2 and layer3 spans time, from the first one on: comparing all positions of two frames
    costs sixteen times as much on layer1's maps as on layer2's. A fresh network is the image network on every frame.
    """

    name = "appearance_preserving"

    def convolutions(
        self, in_channels: int, width: int, *, bottleneck: bool, stride: Stride, time_kernel: int, padding: TimePadding
    ) -> tuple[nn.Module, nn.Module]:
        def registered(channels: int, stride: Stride) -> nn.Module:
            if time_kernel == 1:
                return conv3x3(channels, width, 1, stride)
            return AppearancePreservingConv3d(
                channels, width, time_kernel=time_kernel, stride=stride, time_padding=padding
            )

        if bottleneck:
            return conv1x1(in_channels, width), registered(width, stride)
        return conv3x3(in_channels, width, 1, stride), registered(width, (1, 1, 1))

    def spans_time(self, stage: int, number: int) -> bool:
        return stage in (1, 2) and number % 2 == 0

    def stem_time_kernel(self, time_kernel: int) -> int:
        return 1


_layouts: dict[str, Layout] = {layout.name: layout for layout in (Separable(), I3d(), Full(), AppearancePreserving())}
LAYOUTS: Mapping[str, Layout] = MappingProxyType(_layouts)
"""All layouts by name."""


def register_layout(layout: Layout) -> None:
    """Make a layout available as ``layout=layout.name``, and to :func:`nl3d.from_checkpoint`.

    Raises:
        ValueError: If another layout has that name.
    """
    if layout.name in _layouts:
        raise ValueError(f"layout must have a name of its own, but {layout.name!r} is registered already")
    _layouts[layout.name] = layout


def find_layout(name: str) -> Layout:
    """Layout of a name."""
    check_choice(name, tuple(LAYOUTS), name="layout")
    return LAYOUTS[name]


def spans(kernels: Sequence[Sequence[int]]) -> bool:
    """Whether some kernel spans more than one frame."""
    return any(frames > 1 for stage in kernels for frames in stage)


def conv1x1(in_channels: int, out_channels: int, stride: Stride = (1, 1, 1)) -> nn.Conv3d:
    """1x1x1 convolution without bias."""
    return Conv3d(in_channels, out_channels, 1, stride=stride, bias=False)


def conv3x3(
    in_channels: int,
    out_channels: int,
    time_kernel: int = 1,
    stride: Stride = (1, 1, 1),
    padding: TimePadding = "zeros",
) -> nn.Conv3d:
    """A ``time_kernel x 3 x 3`` convolution without bias."""
    kernel, pads = (time_kernel, 3, 3), (time_kernel // 2, 1, 1)
    return time_padded_conv3d(in_channels, out_channels, kernel, stride=stride, padding=pads, time_padding=padding)
