"""Options of a network from the shapes of its renamed tensors."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from nl3d.convert.family import Tensors, blocks_of
from nl3d.models.layouts import LAYOUTS, spans
from nl3d.models.options import STAGES


def read_architecture(tensors: Tensors) -> dict[str, Any]:
    """Keywords of :class:`~nl3d.models.resnet3d.ResNet3d` that the shapes decide.

    ``layout`` is ``None`` and ``time_kernel`` all ones where no residual block spans time: then any layout computes the
    same, frame by frame.
    """
    _check_widths(tensors)
    stem = tensors.get("conv1.weight")
    if stem is None or stem.ndim not in (4, 5):
        raise ValueError("the file must hold the stem's kernel, 'conv1.weight', but does not")
    if tuple(stem.shape[-2:]) != (7, 7):
        raise ValueError(f"the file must hold a stem of 7x7, got 'conv1.weight' of shape {tuple(stem.shape)}")
    blocks = blocks_of(tensors, r"layer(\d)\.(\d+)\.")
    for stage in range(1, 5):
        numbers = blocks.get(stage, [])
        if not numbers or numbers != list(range(len(numbers))):
            raise ValueError(f"the file must hold blocks 0, 1, ... of layer{stage}, got {numbers}")
    counts = tuple(len(blocks[stage]) for stage in range(1, 5))
    bottleneck = any(re.fullmatch(r"layer\d\.\d+\.conv3\.weight", key) for key in tensors)
    places = {
        f"layer{stage}": tuple(numbers) for stage, numbers in blocks_of(tensors, r"layer(\d)\.non_local(\d+)\.").items()
    }
    return {
        "block": "bottleneck" if bottleneck else "basic",
        "block_counts": counts,
        "base_width": stem.shape[0],
        "in_channels": stem.shape[1],
        "stem_time_kernel": stem.shape[2] if stem.ndim == 5 else 1,
        "shortcut": "conv" if any(".downsample." in key for key in tensors) else "pad",
        "non_local": places or None,
        **_time(tensors, counts, bottleneck=bottleneck),
        **_non_local(tensors, places),
        **_head(tensors),
    }


def _check_widths(tensors: Tensors) -> None:
    """Refuse blocks of other widths than ResNet's, and a classifier that is not on the features."""
    width = _channels(tensors, "bn1.weight")
    for conv, wanted in (("conv1", width), ("layer1.0.conv1", width), ("layer1.0.conv2", width)):
        weight = tensors.get(f"{conv}.weight")
        if weight is not None and width is not None and weight.shape[0] != wanted:
            raise ValueError(
                f"the file must hold a ResNet whose stem and first block are as wide as its first norm, {width}, got "
                f"'{conv}.weight' of shape {tuple(weight.shape)}; wide and grouped ResNets have no place here"
            )
    if {"head.classifier.weight", "head.classifier.bias"} & tensors.keys():
        weight = tensors.get("head.classifier.weight")
        block = max((key for key in tensors if re.fullmatch(r"layer4\.\d+\.bn[23]\.weight", key)), default="")
        features = _channels(tensors, "head.fc.weight") or _channels(tensors, block)
        if weight is None or weight.ndim != 2 or (features is not None and weight.shape[1] != features):
            shape = None if weight is None else tuple(weight.shape)
            raise ValueError(f"the file must hold a classifier of shape (classes, {features}), got {shape}")


def _channels(tensors: Tensors, key: str) -> int | None:
    return tensors[key].shape[0] if key in tensors else None


def _time(tensors: Tensors, counts: tuple[int, ...], *, bottleneck: bool) -> dict[str, Any]:
    """Layout and temporal kernels: which of a block's convolutions span time, and how many frames."""

    def frames(conv: str) -> list[list[int]]:
        return [
            [_frames(tensors, f"{stage}.{number}.{conv}") for number in range(count)]
            for stage, count in zip(STAGES, counts, strict=True)
        ]

    first, second = frames("conv1"), frames("conv2")
    separable = any(key.endswith(".temporal.weight") for key in tensors)
    for name, layout in LAYOUTS.items():
        kernels = layout.read(first, second, bottleneck=bottleneck, separable=separable)
        if kernels is not None:
            return {"layout": name, "time_kernel": kernels}
    if spans(first) or spans(second):
        where = "both" if spans(first) and spans(second) else "one"
        raise ValueError(
            f"the file must span time as one of the layouts {', '.join(LAYOUTS)} does, got {where} of the first two "
            "convolutions of its blocks"
        )
    return {"layout": None, "time_kernel": second}


def _frames(tensors: Tensors, conv: str) -> int:
    weight = tensors.get(f"{conv}.weight", tensors.get(f"{conv}.temporal.weight"))
    return weight.shape[2] if weight is not None and weight.ndim == 5 else 1


def _non_local(tensors: Tensors, places: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Modes that the tensors show, and widths where they are not half of the block's."""
    if not places:
        return {}
    known: dict[str, Any] = {}
    names = {key.split(".")[2] for key in tensors if ".non_local" in key}
    if "w_f" in names:
        known["non_local_mode"] = "concatenation"
    elif not names & {"theta", "phi"}:
        known["non_local_mode"] = "gaussian"
    widths: dict[str, int] = {}
    for stage, numbers in places.items():
        shapes = {
            tuple(tensors[key].shape[:2])
            for number in numbers
            if (key := f"{stage}.non_local{number}.g.weight") in tensors
        }
        if len(shapes) > 1:
            raise ValueError(f"the file must hold non-local blocks of one width in {stage}, got {sorted(shapes)}")
        for inner, channels in shapes:
            if inner != max(channels // 2, 1):
                widths[stage] = inner
    if widths:
        known["non_local_inner_channels"] = widths
    return known


def _head(tensors: Tensors) -> dict[str, Any]:
    """The file's own head: a bottleneck, a batch norm neck, or only a classifier."""
    if "head.fc.weight" in tensors:
        return {"head": "bottleneck", "embedding_dim": tensors["head.fc.weight"].shape[0]}
    if "head.bn.weight" in tensors:
        projection = tensors.get("head.projection.weight")
        return {
            "head": "bnneck",
            "classifier_bias": "head.classifier.bias" in tensors,
            "projection_dim": None if projection is None else projection.shape[0],
        }
    return {"head": "linear"}


def fold_into_norms(tensors: Tensors, norm_eps: float = 1e-5) -> dict[str, Tensor]:
    """Give the tensors the form that our modules have, without a change of what they compute.

    A bias before the norm of a non-local block goes into that norm's mean. Norms that a file has folded into scale and
    shift get a mean of 0 and the variance that makes the division one by 1.
    """
    folded = dict(tensors)
    if not any(key.endswith(".running_mean") for key in tensors):
        norms = (
            key.removesuffix(".weight")
            for key in tensors
            if re.fullmatch(r"(?:.+\.)?(?:bn\d?|downsample\.1)\.weight", key)
        )
        for norm in norms:
            folded[f"{norm}.running_mean"] = torch.full_like(tensors[f"{norm}.weight"], 0.0)
            folded[f"{norm}.running_var"] = torch.full_like(tensors[f"{norm}.weight"], 1.0 - norm_eps)
    for key in [key for key in folded if key.endswith(".w_z.bias")]:
        mean = f"{key.removesuffix('w_z.bias')}bn.running_mean"
        if mean in folded:
            folded[mean] = folded[mean] - folded.pop(key)
    return folded
