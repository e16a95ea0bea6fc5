"""Refusals: every check of a batch that does not need the other ranks."""

from __future__ import annotations

import torch
from torch import Tensor


def check_batch(embeddings: Tensor, pids: Tensor, *, name: str = "embeddings") -> None:
    """Refuse anything but floating-point rows ``(B, D)`` and one integer identity for each."""
    check_tensor(embeddings, f"{name} must be a tensor (B, D)")
    check_tensor(pids, "pids must be a tensor (B,)")
    shape = tuple(embeddings.shape)
    if embeddings.ndim != 2:
        hint = "; pool time and space first" if embeddings.ndim > 2 else ""
        raise ValueError(f"{name} must be (B, D), got {shape}{hint}")
    if not embeddings.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {embeddings.dtype}")
    if 0 in shape:
        raise ValueError(f"{name} must not be empty, got {shape}")
    check_pids(pids, len(embeddings))
    if pids.device != embeddings.device:
        raise ValueError(
            f"pids must be on the device of {name}, {embeddings.device}, got {pids.device}; use pids.to({name}.device)"
        )


def check_pids(pids: Tensor, length: int) -> None:
    """Refuse anything but ``length`` integers."""
    if pids.is_floating_point() or pids.is_complex() or pids.dtype == torch.bool:
        raise TypeError(f"pids must be integers, got {pids.dtype}; use pids.long()")
    if tuple(pids.shape) != (length,):
        raise ValueError(f"pids must be (B,) with B={length}, one for each row, got {tuple(pids.shape)}")


def check_tensor(value: object, rule: str) -> None:
    """Refuse anything but a tensor; ``rule`` opens the sentence."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{rule}, got {type(value).__name__}")
