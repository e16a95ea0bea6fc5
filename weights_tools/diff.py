"""Two checkpoints, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from nl3d.convert.read import read_checkpoint


class Difference(NamedTuple):
    """One tensor that is not the same in both files."""

    key: str
    what: str


def diff(first: str | Path, second: str | Path) -> list[Difference]:
    """List the tensors that two files do not share: missing, of another shape or dtype, or of other values."""
    one, other = read_checkpoint(first).tensors, read_checkpoint(second).tensors
    rows = []
    for key in [*one, *(key for key in other if key not in one)]:
        if key not in other or key not in one:
            rows.append(Difference(key, f"only in {Path(first if key in one else second).name}"))
            continue
        a, b = one[key], other[key]
        if a.shape != b.shape:
            rows.append(Difference(key, f"shape {tuple(a.shape)} and {tuple(b.shape)}"))
        elif a.dtype != b.dtype:
            rows.append(Difference(key, f"dtype {_name(a.dtype)} and {_name(b.dtype)}, {_distance(a, b)}"))
        elif not torch.equal(a, b):
            rows.append(Difference(key, _distance(a, b)))
    return rows


def _distance(a: torch.Tensor, b: torch.Tensor) -> str:
    if a.numel() == 0:
        return "both empty"
    distance = (a.double() - b.double()).abs().max().item()
    return f"largest difference {distance:.3g} at values up to {a.double().abs().max().item():.3g}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
