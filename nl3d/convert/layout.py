"""From the layout that a file has to the one that is asked for, where that is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from nl3d.convert.family import Tensors
from nl3d.layers.separable import SeparableConv3d
from nl3d.layers.shapes import check_choice
from nl3d.models.layouts import LAYOUTS
from nl3d.models.options import block_time_kernels

TimeKernel = int | Sequence[Sequence[int]]


def choose_layout(
    shaped: Mapping[str, Any],
    *,
    is_image: bool,
    layout: str | None,
    time_kernel: TimeKernel | None,
    stem_time_kernel: int | None,
    approximate: bool,
) -> dict[str, Any]:
    """Layout and temporal kernels of the network, from the file's own and from what is asked for."""
    check_choice(layout, (None, *LAYOUTS), name="layout")
    own = shaped["layout"]
    if is_image:
        if time_kernel is None:
            time_kernel = 1 if layout is None else 3
        layout = layout or ("full" if time_kernel == 1 else "separable")
        return {"layout": layout, "time_kernel": time_kernel, "stem_time_kernel": stem_time_kernel}
    chosen = layout or own or "full"
    if own is not None and chosen != own and not (approximate and (own, chosen) == ("full", "separable")):
        remedy = "; approximate=True takes the nearest kernels" if (own, chosen) == ("full", "separable") else ""
        raise ValueError(
            f"layout must be {own!r}, in which the file's kernels span time, got {chosen!r}, which cannot hold them "
            f"exactly{remedy}"
        )
    kernels = shaped["time_kernel"]
    if time_kernel is not None:
        wanted = block_time_kernels(time_kernel, chosen, shaped["block_counts"])
        _check_frames("time_kernel", list(chain(*kernels)), list(chain(*wanted)), time_kernel)
        kernels = wanted
    stem_kernel = shaped["stem_time_kernel"]
    if stem_time_kernel is not None:
        _check_frames("stem_time_kernel", [stem_kernel], [stem_time_kernel], stem_time_kernel)
        stem_kernel = stem_time_kernel
    return {"layout": chosen, "time_kernel": kernels, "stem_time_kernel": stem_kernel}


def _check_frames(name: str, own: Sequence[int], wanted: Sequence[int], asked: object) -> None:
    if len(own) != len(wanted) or any(had not in (1, want) for had, want in zip(own, wanted, strict=True)):
        raise ValueError(
            f"{name} must be that of the file, {tuple(own)}, where its kernels span time, got {asked!r}; leave it out"
        )


def separate_blocks(tensors: Tensors, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Take apart each full kernel whose place in the model is a separable convolution, and say how much was kept."""
    separated = dict(tensors)
    kept: dict[str, float] = {}
    for name, module in model.named_modules():
        weight = separated.get(f"{name}.weight")
        if isinstance(module, SeparableConv3d) and weight is not None and weight.ndim == 5 and weight.shape[2] > 1:
            temporal, spatial, share = separate_kernel(separated.pop(f"{name}.weight"))
            separated |= {f"{name}.temporal.weight": temporal, f"{name}.spatial.weight": spatial}
            kept[name] = share
    return separated, kept


def flatten_kernels(tensors: Tensors, model: nn.Module) -> dict[str, Tensor]:
    """Write kernels of one frame as 2D ones where the model's span more, for them to be inflated."""
    flat = dict(tensors)
    for name, module in model.named_modules():
        weight = flat.get(f"{name}.weight")
        if weight is None or weight.ndim != 5 or weight.shape[2] != 1:
            continue
        if hasattr(module, "inflate") or (isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1):
            flat[f"{name}.weight"] = weight.squeeze(2)
    return flat


def separate_kernel(weight: Tensor) -> tuple[Tensor, Tensor, float]:
    """Nearest pair of a temporal and a spatial kernel, in squared error, to a full kernel.

    A temporal kernel of ``in_channels`` to ``in_channels``, then a spatial one, compose to a kernel whose matrix of
    (output channel, space) by (input channel, time) has at most rank ``in_channels``; and any such matrix is composed
    by some pair. So the best pair is the matrix's truncated singular value decomposition.

    Shape:
        - ``weight``: ``(out_channels, in_channels, t, h, w)``
        - Output: ``(in_channels, in_channels, t, 1, 1)``, ``(out_channels, in_channels, 1, h, w)``, and the share of
          the full kernel's sum of squares that the pair keeps: 1 if it is exact
    """
    channels, rank, frames, height, width = weight.shape
    matrix = weight.double().permute(0, 3, 4, 1, 2).reshape(channels * height * width, rank * frames)
    energies, directions = torch.linalg.eigh(matrix.T @ matrix)  # ascending
    rows = directions[:, -rank:].T  # orthonormal: the best subspace of the given rank
    temporal = rows.reshape(rank, rank, frames, 1, 1)
    spatial = (matrix @ rows.T).reshape(channels, height, width, rank).permute(0, 3, 1, 2).unsqueeze(2)
    if weight.is_meta:
        kept = float("nan")
    else:
        total = energies.sum().item()
        kept = energies[-rank:].sum().item() / total if total > 0 else 1.0
    return temporal.to(weight.dtype).contiguous(), spatial.to(weight.dtype).contiguous(), min(kept, 1.0)
