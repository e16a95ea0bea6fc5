"""What callers hand in, tensors or arrays, as checked tensors on one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Tensor | np.ndarray


def check_choice(value: object, choices: Sequence[object], *, name: str) -> None:
    """Refuse a value that is none of the choices, and list them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def as_embeddings(query: Array, gallery: Array) -> tuple[Tensor, Tensor]:
    """Two sets of finite embeddings of one width, in float32, or float64 if one of them is."""
    rows, others = as_matrix(query, "(N, D)", name="query"), as_matrix(gallery, "(N, D)", name="gallery")
    if rows.shape[1] != others.shape[1]:
        raise ValueError(
            f"query and gallery must have one width, got {rows.shape[1]} and {others.shape[1]} dimensions; "
            "embed both with the same network"
        )
    if rows.device != others.device:
        raise ValueError(f"query and gallery must be on one device, got {rows.device} and {others.device}")
    for values, name in ((rows, "query"), (others, "gallery")):
        if values.sum().isfinite():  # a tenth of the time of a look at each value
            continue
        unfit = int((~values.isfinite()).any(1).sum())
        if unfit:
            raise ValueError(
                f"{name} must be finite, got NaN or infinite values in {unfit} of {len(values)} embeddings"
            )
    dtype = torch.float64 if torch.float64 in (rows.dtype, others.dtype) else torch.float32
    return rows.to(dtype), others.to(dtype)


def as_labels(labels: Array | Sequence[int], length: int, *, name: str) -> np.ndarray:
    """One integer for each row, as an int64 array on the CPU."""
    values = labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {values.dtype}")
    if values.shape != (length,):
        raise ValueError(f"{name} must have one entry for each row, {length}, got shape {values.shape}")
    return values.astype(np.int64)


def as_matrix(values: Array, shape: str, *, name: str) -> Tensor:
    """A floating-point matrix with something in it, as a tensor without a gradient; it may share memory."""
    if not isinstance(values, Tensor | np.ndarray):
        raise TypeError(f"{name} must be a tensor or an array {shape}, got {type(values).__name__}")
    matrix = values.detach() if isinstance(values, Tensor) else _from_array(values, name)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be {shape} and not empty, got {tuple(matrix.shape)}")
    if not matrix.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {matrix.dtype}")
    return matrix


def _from_array(values: np.ndarray, name: str) -> Tensor:
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of numbers, got {values.dtype}")
    if not values.flags.writeable or any(stride < 0 for stride in values.strides) or not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))  # a copy: torch wraps no others
    return torch.from_numpy(values)
