"""Person re-identification: torchreid, fast-reid, reid-strong-baseline, MCTrack, AP3D."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from nl3d.convert.families.image import IMAGENET
from nl3d.convert.family import BLOCK_OUTPUT, Family, Rules, Settled, Tensors, blocks_of, holds, resnet_rules
from nl3d.convert.read import ForeignCheckpoint

PERSONS = {**IMAGENET, "input_size": (3, 256, 128)}


def _settle_torchreid(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settled:
    """The network with a bottleneck, ``resnet50_fc512``, ends it in a ReLU and does not stride the last stage."""
    return ({"last_stride": 1, "negative_slope": 0.0} if "head.fc.weight" in tensors else {}), {}


TORCHREID = Family(
    name="torchreid",
    about="ResNet, with or without a fully connected bottleneck",
    url="https://github.com/KaiyangZhou/deep-person-reid",
    license="MIT",
    marks=(r"layer[1-4]\.\d+\.conv1\.weight", r"classifier\.weight|fc\.0\.weight"),
    unlike=(r"fc\.(?:weight|bias)", r"bottleneck\..+", r"bn\..+"),
    rank=4,
    rules=(
        *resnet_rules(),
        (r"fc\.0\.(weight|bias)", r"head.fc.\1"),
        (r"fc\.1\.(\w+)", r"head.bn.\1"),
        (r"classifier\.(weight|bias)", r"head.classifier.\1"),
    ),
    settle=_settle_torchreid,
    is_reid=True,
    preprocessing=PERSONS,
)

STRONG_BASELINE = Family(
    name="reid_strong_baseline",
    about="ResNet with a batch norm neck",
    url="https://github.com/michuanhaohao/reid-strong-baseline",
    license="MIT",
    marks=(r"base\.layer[1-4]\.\d+\.conv1\.weight",),
    rank=4,
    rules=(
        *resnet_rules("base."),
        (r"bottleneck\.(\w+)", r"head.bn.\1"),
        (r"classifier\.(weight|bias)", r"head.classifier.\1"),
    ),
    network={"last_stride": 1, "stem_relu": False},
    is_reid=True,
    preprocessing=PERSONS,
)

_FASTREID_RULES: Rules = (
    *resnet_rules("backbone."),
    (r"(layer[1-4]\.non_local\d+\.)W\.0\.(weight|bias)", r"\1w_z.\2"),
    (r"(layer[1-4]\.non_local\d+\.)W\.1\.(\w+)", r"\1bn.\2"),
    (r"(layer[1-4]\.non_local\d+\.(?:theta|phi|g)\.\w+)", r"\1"),
    (r"heads\.(?:bnneck|bottleneck\.0)\.(\w+)", r"head.bn.\1"),
    (r"heads\.(?:classifier\.)?weight", r"head.classifier.weight"),
    (r"heads\.pool_layer\.p", r"head.pool.p"),
    (r"pixel_(?:mean|std)", None),  # preprocessing, read by _relocate_fastreid
)


def _relocate_fastreid(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Non-local blocks stand beside the stages, ``NL_2.0`` and on, and belong after each stage's last blocks."""
    counts = {stage: len(blocks) for stage, blocks in blocks_of(tensors, r"backbone\.layer(\d)\.(\d+)\.").items()}
    beside = {stage: len(blocks) for stage, blocks in blocks_of(tensors, r"backbone\.NL_(\d)\.(\d+)\.").items()}
    moved: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if match := re.fullmatch(r"backbone\.NL_(\d)\.(\d+)\.(.+)", key):
            stage = int(match[1])
            key = f"layer{stage}.non_local{counts.get(stage, 0) - beside[stage] + int(match[2])}.{match[3]}"
        moved[key] = tensor
    network: dict[str, Any] = {}
    if holds(tensors, r"heads\.weight|heads\.bottleneck\.0\..+"):  # current names: the stem's pool changed with them
        network |= {"stem_pool_padding": 0, "stem_pool_ceil_mode": True}
    return moved, network


def _settle_fastreid(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settled:
    """Its buffers say how images are normalised, in 0 to 255."""
    preprocessing: dict[str, Any] = {}
    for key, name in (("pixel_mean", "mean"), ("pixel_std", "std")):
        values = checkpoint.tensors.get(key)
        if values is not None and not values.is_meta and values.numel() == 3:
            preprocessing[name] = tuple(round(value / 255, 6) for value in values.flatten().tolist())
    return ({"pool": "gem"} if "head.pool.p" in tensors else {}), preprocessing


_FASTREID: dict[str, Any] = {
    "rank": 4,
    "unlike": (r"backbone\.conv1\.conv\.weight",),
    "rules": _FASTREID_RULES,
    "biased": (BLOCK_OUTPUT,),
    "relocate": _relocate_fastreid,
    "settle": _settle_fastreid,
    "is_reid": True,
    "preprocessing": PERSONS,
}
_NOT_AGW = (r"backbone\.NL_\d\..+", r"heads\.pool_layer\.p")

FASTREID_BOT = Family(
    name="fastreid_bot",
    about="bag of tricks, ResNet with a batch norm neck; names of v0.1.1 and current ones",
    url="https://github.com/JDAI-CV/fast-reid",
    license="Apache-2.0",
    marks=(r"backbone\.layer[1-4]\.\d+\.conv1\.weight",),
    **{**_FASTREID, "unlike": (*_FASTREID["unlike"], *_NOT_AGW)},
    network={"last_stride": 1},
)

FASTREID_AGW = Family(
    name="fastreid_agw",
    about="AGW, ResNet with 2D non-local blocks, GeM pooling and a batch norm neck",
    url="https://github.com/JDAI-CV/fast-reid",
    license="Apache-2.0",
    marks=(r"backbone\.layer[1-4]\.\d+\.conv1\.weight", "|".join(_NOT_AGW)),
    **_FASTREID,
    network={
        "last_stride": 1,
        "non_local_mode": "dot_product",
        "non_local_time_window": 1,  # frame by frame, as on images
        "pool": "gem",
    },
)


_MCTRACK_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Entries of the ``Sequential`` that its backbone is, of torchvision's ResNet."""


def _relocate_mctrack(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
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


def _settle_mctrack(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settled:
    """Where a bottleneck stands before the norm, nothing bends its output."""
    return ({"negative_slope": 1.0} if "head.fc.weight" in tensors else {}), {}


MCTRACK = Family(
    name="mctrack_reid",
    about="ResNet with a batch norm neck and an embedding of its own width; embeddings before their L2 norm",
    url="https://huggingface.co/blank4hd/mctrack-reid",
    license="MIT",
    marks=(r"backbone\.4\.\d+\.conv1\.weight",),
    rank=4,
    rules=(
        *resnet_rules(),
        (r"bnneck\.(\w+)", r"head.bn.\1"),
        (r"embedding_layer\.weight", "head.projection.weight"),
        (r"bottleneck\.(weight|bias)", r"head.fc.\1"),
        (r"bn_neck\.(\w+)", r"head.bn.\1"),
        (r"gem\.p", "head.pool.p"),
        (r"classifier\.(weight|bias)", r"head.classifier.\1"),
    ),
    relocate=_relocate_mctrack,
    settle=_settle_mctrack,
    network={"last_stride": 1},
    is_reid=True,
    preprocessing=PERSONS,
)


def _relocate_ap3d(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Non-local blocks are entries of the stages, so that the residual blocks behind them have other numbers."""
    entries = blocks_of(tensors, r"layer(\d)\.(\d+)\.")
    names: dict[str, str] = {}
    for stage, numbers in entries.items():
        count = 0
        for number in numbers:
            if holds(tensors, rf"layer{stage}\.{number}\.(?:theta|phi|g|W)\..+"):
                names[f"layer{stage}.{number}"] = f"layer{stage}.non_local{count - 1}"
            else:
                names[f"layer{stage}.{number}"] = f"layer{stage}.{count}"
                count += 1
    moved: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        entry = ".".join(key.split(".")[:2])
        target = names.get(entry, entry) + key[len(entry) :]
        if target in moved:
            raise ValueError(f"the file must have at most one non-local block after a residual block, got {key!r}")
        moved[target] = tensor
    pooled = holds(tensors, r"layer\d\.\d+\.g\.0\.weight")
    return moved, {"non_local_subsample": "after"} if pooled else {}


AP3D = Family(
    name="ap3d_nlresnet",
    about="ResNet with non-local blocks and plain (not appearance-preserving) convolutions",
    url="https://github.com/guxinqian/AP3D",
    license="Apache-2.0",
    marks=(r"layer[1-4]\.\d+\.conv1\.weight", r"classifier\..+|bn\..+|layer[1-4]\.\d+\.theta\..+"),
    unlike=(r"head\..+", r"layer[1-4]\.non_local\d+\..+", r".*\.nl\..+"),
    rank=5,
    rules=(
        *resnet_rules(),
        (r"(layer[1-4]\.\d+\.conv2)\.conv3d\.(\w+)", r"\1.\2"),
        (r"(layer[1-4]\.non_local\d+\.(?:theta|phi|g))\.(?:0\.)?(weight|bias)", r"\1.\2"),
        (r"(layer[1-4]\.non_local\d+\.)W\.0\.(weight|bias)", r"\1w_z.\2"),
        (r"(layer[1-4]\.non_local\d+\.)W\.1\.(\w+)", r"\1bn.\2"),
        (r"bn\.(\w+)", r"head.bn.\1"),
        (r"classifier\.(weight|bias)", r"head.classifier.\1"),
    ),
    biased=(BLOCK_OUTPUT, r"head\.classifier"),
    relocate=_relocate_ap3d,
    network={"last_stride": 1, "pool": "frame_max"},
    is_reid=True,
    preprocessing={**PERSONS, "num_frames": 4, "frame_step": 8},
)
