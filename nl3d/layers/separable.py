"""Temporally separable 3D convolution (Sec. 3.1, Fig. 3d)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nl3d.layers.precision import Conv3d
from nl3d.layers.shapes import Size3, check_clips, to_3tuple
from nl3d.layers.time_padding import TimePadding, time_padded_conv3d


class SeparableConv3d(nn.Module):
    """Temporal convolution ``(t, 1, 1)`` followed by a spatial one ``(1, h, w)``.

    Stands in for a full ``(t, h, w)`` kernel at a cost of ``t + h*w`` taps instead of ``t*h*w``. Nothing stands between
    the two, so that together they are one linear map, and :meth:`from_conv2d` can start as exactly an inflated kernel.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.1, Fig. 3(d). The paper's order is temporal, then spatial.

    Args:
        in_channels: Channels of the input clips.
        out_channels: Channels of the output clips.
        kernel_size: Kernel, as an int or ``(t, h, w)``; odd in time, and odd in space unless ``padding`` is given.
        stride: Stride, as an int or ``(t, h, w)``.
        padding: Padding, as an int or ``(t, h, w)``; half of the dilated kernel if left out.
        dilation: Dilation, as an int or ``(t, h, w)``.
        groups: Groups of both convolutions.
        bias: Whether the spatial convolution has a bias. The temporal one never has: the zeros that pad the spatial
            convolution would then no longer be the zeros that pad the full kernel.
        time_padding: ``"zeros"``, or ``"replicate"`` for copies of the first and last frame.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: ``(B, out_channels, ceil(T / t), ceil(H / h), ceil(W / w))`` at stride ``(t, h, w)``

    Raises:
        ValueError: If a kernel is even where its padding could not be symmetric, if channels do not divide into
            ``groups``, or if ``time_padding`` is unknown.

    Example:
        >>> layer = SeparableConv3d(8, 16, kernel_size=3, stride=(1, 2, 2))
        >>> layer(torch.zeros(2, 8, 4, 32, 16)).shape
        torch.Size([2, 16, 4, 16, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Size3 = 3,
        stride: Size3 = 1,
        padding: Size3 | None = None,
        dilation: Size3 = 1,
        groups: int = 1,
        bias: bool = False,
        time_padding: TimePadding = "zeros",
    ) -> None:
        super().__init__()
        kt, kh, kw = to_3tuple(kernel_size, name="kernel_size")
        st, sh, sw = to_3tuple(stride, name="stride")
        dt, dh, dw = to_3tuple(dilation, name="dilation")
        if padding is None:
            if not (kt % 2 and kh % 2 and kw % 2):
                raise ValueError(f"kernel_size must be odd on every axis unless padding is given, got {(kt, kh, kw)}")
            pt, ph, pw = dt * (kt // 2), dh * (kh // 2), dw * (kw // 2)
        else:
            pt, ph, pw = to_3tuple(padding, name="padding", minimum=0)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels={in_channels} and out_channels={out_channels}, got {groups}"
            )
        self.temporal = time_padded_conv3d(
            in_channels,
            in_channels,
            (kt, 1, 1),
            stride=(st, 1, 1),
            padding=(pt, 0, 0),
            dilation=(dt, 1, 1),
            groups=groups,
            time_padding=time_padding,
        )
        self.spatial = Conv3d(
            in_channels,
            out_channels,
            (1, kh, kw),
            stride=(1, sh, sw),
            padding=(0, ph, pw),
            dilation=(1, dh, dw),
            groups=groups,
            bias=bias,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He-initialise the spatial kernel (as [13] in Sec. 4.2); start the temporal one as the identity."""
        nn.init.kaiming_normal_(self.spatial.weight, mode="fan_out", nonlinearity="relu")
        if self.spatial.bias is not None:
            nn.init.zeros_(self.spatial.bias)
        nn.init.dirac_(self.temporal.weight, groups=self.temporal.groups)

    def forward(self, clips: Tensor) -> Tensor:
        check_clips(clips, self.temporal.in_channels, finite=False)
        x = self.temporal(clips)  # (B, in_channels, T', H, W)
        return self.spatial(x)  # (B, out_channels, T', H', W')

    def inflate(self, key: str, tensor: Tensor, *, init: Literal["average", "center"]) -> dict[str, Tensor]:
        """Tensors of this layer from the ``"weight"`` or ``"bias"`` of the image layer in its place."""
        if key != "weight":
            return {f"spatial.{key}": tensor}
        weight = self.temporal.weight
        taps = torch.zeros(weight.shape, dtype=tensor.dtype)
        nn.init.dirac_(taps, groups=self.temporal.groups)
        if init == "average":
            middle = taps[:, :, weight.shape[2] // 2, None]
            taps = middle.expand_as(taps) / weight.shape[2]
        return {"temporal.weight": taps, "spatial.weight": tensor.unsqueeze(2)}

    @classmethod
    def from_conv2d(
        cls, conv: nn.Conv2d, *, time_kernel: int = 3, time_stride: int = 1, time_padding: TimePadding = "zeros"
    ) -> SeparableConv3d:
        """Factorise the inflation of a 2D convolution: every temporal tap is identity/t, the spatial kernel is its own.

        The result computes what the 2D kernel, repeated ``time_kernel`` times and divided by it, computes: for every
        input, borders included.

        Args:
            conv: The 2D convolution; its stride, padding, dilation, groups and bias carry over. Its weights are copied.
            time_kernel: Frames that the temporal kernel spans, odd.
            time_stride: Stride in time, in frames.
            time_padding: ``"zeros"`` or ``"replicate"``.

        Raises:
            ValueError: If ``time_kernel`` is even, or ``conv`` pads with something else than zeros.

        Example:
            >>> image_layer = torch.nn.Conv2d(3, 8, 7, stride=2, padding=3)
            >>> SeparableConv3d.from_conv2d(image_layer)(torch.zeros(1, 3, 4, 32, 16)).shape
            torch.Size([1, 8, 4, 16, 8])
        """
        if time_kernel % 2 == 0:
            raise ValueError(f"time_kernel must be odd, got {time_kernel}")
        if conv.padding_mode != "zeros":
            raise ValueError(f"conv must be padded with zeros, got padding_mode={conv.padding_mode!r}")
        height, width = symmetric_padding(conv)
        with torch.device("meta"):  # nothing is drawn at random only to be overwritten
            layer = cls(
                conv.in_channels,
                conv.out_channels,
                kernel_size=(time_kernel, *conv.kernel_size),
                stride=(time_stride, *conv.stride),
                padding=(time_kernel // 2, height, width),
                dilation=(1, *conv.dilation),
                groups=conv.groups,
                bias=conv.bias is not None,
                time_padding=time_padding,
            )
        layer = layer.to_empty(device=conv.weight.device).to(conv.weight.dtype)
        tensors = layer.inflate("weight", conv.weight.detach(), init="average")
        if conv.bias is not None:
            tensors |= layer.inflate("bias", conv.bias.detach(), init="average")
        layer.load_state_dict(tensors)
        return layer.train(conv.training)


def symmetric_padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Padding ``(h, w)`` of a 2D convolution as numbers, also where it was given as ``"same"`` or ``"valid"``."""
    if not isinstance(conv.padding, str):
        return conv.padding[0], conv.padding[1]
    if conv.padding == "valid":
        return 0, 0
    spans = [step * (size - 1) for step, size in zip(conv.dilation, conv.kernel_size, strict=True)]
    if any(span % 2 for span in spans):
        raise ValueError(f"padding 'same' must be symmetric, got kernel_size {conv.kernel_size}")
    return spans[0] // 2, spans[1] // 2
