"""The baseline without learning: what the colours of the clothes alone can do."""

from __future__ import annotations

import torch
from torch import Tensor


def stripe_histogram(frames: Tensor, stripes: int = 6, *, bins: tuple[int, int, int] = (8, 4, 4)) -> Tensor:
    """Histograms of hue, saturation and value in horizontal stripes, averaged over the frames of each tracklet.

    A network that has learnt something about people must do better. The square root of each share is returned, so that
    the Euclidean distance of two results is their Hellinger distance, which suits histograms.

    Args:
        frames: RGB frames of one tracklet or of several; uint8, or floating point in [0, 1].
        stripes: Stripes from head to foot, each with a histogram of its own.
        bins: Bins of hue, saturation and value.

    Shape:
        - Input: ``(T, 3, H, W)`` or ``(B, T, 3, H, W)``
        - Output: ``(stripes * h * s * v,)`` or ``(B, stripes * h * s * v)`` for ``(h, s, v)`` bins, of length 1 each

    Raises:
        TypeError: If ``frames`` is neither uint8 nor floating point.
        ValueError: If ``frames`` has another shape or is empty, or there are more stripes than rows.

    Example:
        >>> stripe_histogram(torch.zeros(4, 3, 64, 32, dtype=torch.uint8)).shape
        torch.Size([768])
    """
    if frames.ndim not in (4, 5) or frames.shape[-3] != 3:
        hint = "; for clips (B, 3, T, H, W) use clips.transpose(1, 2)" if frames.ndim == 5 else ""
        raise ValueError(f"frames must be (T, 3, H, W) or (B, T, 3, H, W), got {tuple(frames.shape)}{hint}")
    if not frames.numel():
        raise ValueError(f"frames must not be empty on any axis, got {tuple(frames.shape)}")
    if frames.dtype != torch.uint8 and not frames.dtype.is_floating_point:
        raise TypeError(f"frames must be uint8 or floating point in [0, 1], got {frames.dtype}")
    if not 1 <= stripes <= frames.shape[-2]:
        raise ValueError(f"stripes must be from 1 to the {frames.shape[-2]} rows of the frames, got {stripes}")
    if frames.ndim == 4:
        return stripe_histogram(frames[None], stripes, bins=bins)[0]
    rgb = frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()
    num_tracklets, num_frames, _, height, width = rgb.shape
    joint = torch.zeros((num_tracklets, num_frames, height, width), dtype=torch.int64, device=frames.device)
    for values, count in zip(hue_saturation_value(rgb), bins, strict=True):
        joint = joint * count + (values * count).long().clamp_(0, count - 1)
    stripe = torch.arange(height, device=frames.device) * stripes // height
    places = (joint + stripe[:, None] * (bins[0] * bins[1] * bins[2])).flatten(1)
    counts = torch.zeros((num_tracklets, stripes * bins[0] * bins[1] * bins[2]), device=frames.device)
    counts.scatter_add_(1, places, torch.ones_like(places, dtype=counts.dtype))
    return (counts / places.shape[1]).sqrt()


def hue_saturation_value(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value, each in [0, 1] and without the channel axis, of ``(..., 3, H, W)`` in [0, 1]."""
    value, brightest = rgb.max(-3)
    spread = value - rgb.amin(-3)
    red, green, blue = rgb.unbind(-3)
    angle = torch.stack([green - blue, blue - red, red - green], -3).gather(-3, brightest.unsqueeze(-3)).squeeze(-3)
    sixth = angle / spread.clamp_min(1e-8) + 2.0 * brightest  # red at 0, green at 2, blue at 4, back to red at 6
    hue = torch.where(spread > 0, (sixth / 6.0) % 1.0, torch.zeros_like(value))
    return hue, spread / value.clamp_min(1e-8), value
