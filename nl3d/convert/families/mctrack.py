"""MCTrack: image re-identification with an embedding of its own width."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from nl3d.convert.families.torchvision import PERSONS
from nl3d.convert.family import Family, Settings, Tensors, holds, resnet_rules
from nl3d.convert.read import ForeignCheckpoint

_MCTRACK_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Entries of the ``Sequential`` that its backbone is, of torchvision's ResNet."""


def _prepare_mctrack(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give the backbone's numbered children their names; layers without a bias, where ours have one, get zeros."""
    moved: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(r"backbone\.(\d)\.(.+)", key)
        if match and match[1] in _MCTRACK_CHILDREN:
            key = f"{_MCTRACK_CHILDREN[match[1]]}.{match[2]}"
        moved[key] = tensor.reshape(1) if key == "gem.p" else tensor
    for layer in ("bottleneck", "classifier"):
        if "bottleneck.weight" in moved and f"{layer}.weight" in moved:
            moved[f"{layer}.bias"] = torch.zeros_like(moved[f"{layer}.weight"][:, 0])
    return moved, {"pool": "gem"} if "gem.p" in tensors else {}


def _finalize_mctrack(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
    """Where a bottleneck stands before the norm, nothing bends its output."""
    return ({"negative_slope": 1.0} if "head.fc.weight" in tensors else {}), {}


MCTRACK = Family(
    name="mctrack_reid",
    about="ResNet with a batch norm neck and an embedding of its own width; embeddings before their L2 norm",
    url="https://huggingface.co/blank4hd/mctrack-reid",
    license="MIT",
    required_keys=(r"backbone\.4\.\d+\.conv1\.weight",),
    rank=4,
    infer_if=lambda checkpoint: holds(checkpoint.tensors, r"(?:bnneck|bn_neck|embedding_layer|gem)\..+"),
    rules=(
        *resnet_rules(),
        (r"bnneck\.(\w+)", r"head.bn.\1"),
        (r"embedding_layer\.weight", "head.projection.weight"),
        (r"bottleneck\.(weight|bias)", r"head.fc.\1"),
        (r"bn_neck\.(\w+)", r"head.bn.\1"),
        (r"gem\.p", "head.pool.p"),
        (r"classifier\.(weight|bias)", r"head.classifier.\1"),
    ),
    prepare=_prepare_mctrack,
    finalize=_finalize_mctrack,
    network={"last_stride": 1},
    is_reid=True,
    preprocessing=PERSONS,
)
