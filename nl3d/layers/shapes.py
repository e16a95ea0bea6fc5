"""Refusals: every check of what a user hands in, so that each error reads the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Size3: TypeAlias = int | Sequence[int]
"""One value for all three axes, or ``(t, h, w)``."""


def to_3tuple(value: Size3, *, name: str, minimum: int = 1) -> tuple[int, int, int]:
    """Spread an int over ``(t, h, w)``, or check that there are three ints already."""
    sizes = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(sizes) != 3 or any(not isinstance(size, int) or size < minimum for size in sizes):
        raise ValueError(f"{name} must be an int or (t, h, w), each at least {minimum}, got {value!r}")
    return sizes


def check_choice(value: object, choices: Sequence[object], *, name: str) -> None:
    """Refuse a value that is none of the choices, and list them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_range(value: object, least: int, most: int, *, name: str) -> None:
    """Refuse anything but a whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")


def check_number(value: object, least: float, most: float, *, name: str) -> None:
    """Refuse anything but a finite number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}, got {value!r}")


def check_clips(clips: Tensor, channels: int, *, name: str = "clips", finite: bool = True) -> None:
    """Refuse anything but floating-point clips ``(B, channels, T, H, W)`` with something on every axis.

    ``finite`` asks that no value is NaN or infinite. That needs a look at every value, so it is left out where it would
    cost more than the look: on other devices than the CPU (a synchronisation) and inside compiled or exported graphs.
    """
    if not isinstance(clips, Tensor):
        raise TypeError(f"{name} must be a tensor (B, C, T, H, W), got {type(clips).__name__}")
    shape = tuple(clips.shape)
    wanted = f"{name} must be (B, C, T, H, W) with C={channels}, got {shape}"
    if clips.ndim == 4:
        raise ValueError(f"{wanted}; for one clip use clips.unsqueeze(0), for images clips.unsqueeze(2)")
    if clips.ndim != 5:
        raise ValueError(wanted)
    if clips.shape[1] != channels:
        hint = "; if frames precede channels, use clips.transpose(1, 2)" if clips.shape[2] == channels else ""
        raise ValueError(wanted + hint)
    if not clips.dtype.is_floating_point:
        raise TypeError(f"{name} must be floating point, got {clips.dtype}; scale to [0, 1] and normalise first")
    if any(size == 0 for size in shape):
        raise ValueError(f"{name} must not be empty on any axis, got {shape}")
    if finite and clips.device.type == "cpu" and not torch.compiler.is_compiling():
        check_finite(clips, name=name)


def check_finite(values: Tensor, *, name: str) -> None:
    """Refuse NaN and infinite values, and count them."""
    finite = torch.isfinite(values)
    if not finite.all():
        raise ValueError(
            f"{name} must be finite, got {int((~finite).sum())} NaN or infinite values; "
            "check the decoding and the normalisation that made them"
        )
