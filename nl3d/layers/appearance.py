"""Appearance-preserving temporal convolution: neighbours are registered to a frame before time is convolved."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nl3d.layers.precision import Conv3d
from nl3d.layers.separable import SeparableConv3d
from nl3d.layers.shapes import check_clips
from nl3d.layers.time_padding import TimePadding


class FrameRegistration(nn.Module):
    """Rebuild a frame's feature map from a neighbour's positions, and damp what the neighbour does not show.

    Position i of the result is ``a_i * sum_j softmax_j(s * cos(g(c_i), g(x_j))) x_j``: a mean of the neighbour's
    positions that look like position i of the centre. The gate ``a_i = sigmoid(w . (theta(c_i) * phi(y_i)))`` compares
    the centre with the rebuilt map y, and is small where they do not match, such as behind an obstacle.

    Source: the idea of Gu et al. 2020, "Appearance-Preserving 3D Convolution", arXiv:2007.08434; written anew, not a
    copy of its code or its exact layers.

    Args:
        channels: Channels of the feature map.
        inner_channels: Channels that are compared; a sixteenth of ``channels`` if left out.
        sharpness: Factor s on the cosine; a larger one takes fewer positions.

    Shape:
        - Input: centre ``(N, channels, H, W)`` and neighbour ``(N, channels, H, W)``
        - Output: ``(N, channels, H, W)``

    Raises:
        ValueError: If a width is not positive.
    """

    def __init__(self, channels: int, inner_channels: int | None = None, *, sharpness: float = 4.0) -> None:
        super().__init__()
        inner_channels = max(channels // 16, 1) if inner_channels is None else inner_channels
        if channels < 1 or inner_channels < 1:
            raise ValueError(f"channels and inner_channels must be at least 1, got {channels} and {inner_channels}")
        self.sharpness = sharpness
        self.g = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.theta = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.phi = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.gate = nn.Conv2d(inner_channels, 1, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the four maps as He et al. do; a gate near a half says neither match nor mismatch."""
        for layer in (self.g, self.theta, self.phi):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.normal_(self.gate.weight, std=0.01)

    def forward(self, centre: Tensor, neighbour: Tensor) -> Tensor:
        queries, keys = (F.normalize(self.g(x), dim=1).flatten(2).mT.unsqueeze(1) for x in (centre, neighbour))
        values = neighbour.flatten(2).mT.unsqueeze(1)  # (N, 1, H * W, C)
        found = F.scaled_dot_product_attention(queries, keys, values.to(queries.dtype), scale=self.sharpness)
        rebuilt = found.squeeze(1).mT.unflatten(2, centre.shape[2:]).to(centre.dtype)
        return rebuilt * torch.sigmoid(self.gate(self.theta(centre) * self.phi(rebuilt)))


class AppearancePreservingConv3d(SeparableConv3d):
    """:class:`SeparableConv3d` whose temporal kernel sees neighbours registered to its centre frame.

    Boxes drift and bodies move, so the same position of two frames shows different parts of a person. The taps of a
    temporal kernel then mix appearances. Here each neighbour is registered first (:class:`FrameRegistration`). The
    centre tap sees the frame itself. The temporal kernel starts as the identity, also when an image kernel is inflated,
    so a fresh layer computes the image layer's response on every frame.

    Source: as :class:`FrameRegistration`.

    Args:
        in_channels: Channels of the input clips.
        out_channels: Channels of the output clips.
        time_kernel: Frames that the temporal kernel spans, odd and at least 3.
        stride: Stride ``(t, h, w)``.
        time_padding: Padding of time, ``"zeros"`` or ``"replicate"``.

    Shape:
        - Input: ``(B, in_channels, T, H, W)``
        - Output: ``(B, out_channels, ceil(T / t), ceil(H / h), ceil(W / w))`` at stride ``(t, h, w)``

    Raises:
        ValueError: If ``time_kernel`` is even or 1.

    Example:
        >>> layer = AppearancePreservingConv3d(32, 16, stride=(1, 2, 2))
        >>> layer(torch.rand(2, 32, 4, 16, 8)).shape
        torch.Size([2, 16, 4, 8, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_kernel: int = 3,
        stride: tuple[int, int, int] = (1, 1, 1),
        time_padding: TimePadding = "zeros",
    ) -> None:
        if time_kernel < 3 or time_kernel % 2 == 0:
            raise ValueError(f"time_kernel must be odd and at least 3, got {time_kernel}")
        super().__init__(in_channels, out_channels, kernel_size=(time_kernel, 3, 3), stride=(1, *stride[1:]))
        # over the stack of each frame with its neighbours, one after another
        self.temporal = Conv3d(in_channels, in_channels, (time_kernel, 1, 1), (time_kernel, 1, 1), bias=False)
        nn.init.dirac_(self.temporal.weight)
        self.time_stride, self.time_padding = stride[0], time_padding
        self.registration = FrameRegistration(in_channels)

    def extra_repr(self) -> str:
        return f"time_stride={self.time_stride}, time_padding={self.time_padding!r}"

    def forward(self, clips: Tensor) -> Tensor:
        check_clips(clips, self.temporal.in_channels, finite=False)
        batch, taps = clips.shape[0], self.temporal.kernel_size[0]
        mode = "constant" if self.time_padding == "zeros" else "replicate"
        padded = F.pad(clips, (0, 0, 0, 0, taps // 2, taps // 2), mode=mode)
        seen = [padded[:, :, tap : tap + clips.shape[2]][:, :, :: self.time_stride] for tap in range(taps)]
        frames = [x.transpose(1, 2).flatten(0, 1) for x in seen]  # of each tap (B * T', C, H, W)
        centre = frames[taps // 2]
        stack = torch.stack(
            [x if tap == taps // 2 else self.registration(centre, x) for tap, x in enumerate(frames)], dim=1
        )
        stack = stack.unflatten(0, (batch, -1)).flatten(1, 2).transpose(1, 2)  # (B, C, T' * taps, H, W)
        return self.spatial(self.temporal(stack))

    def inflate(self, key: str, tensor: Tensor, *, init: Literal["average", "center"]) -> dict[str, Tensor]:
        """Tensors of this layer from the image layer's; the temporal kernel is the identity whatever ``init`` says."""
        return super().inflate(key, tensor, init="center")
