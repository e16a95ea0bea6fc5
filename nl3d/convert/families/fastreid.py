"""fast-reid: bag of tricks and AGW."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nl3d.convert.families.torchvision import PERSONS
from nl3d.convert.family import (
    BLOCK_OUTPUT,
    NON_LOCAL_RULES,
    Family,
    Settings,
    Tensors,
    holds,
    place_after_last_blocks,
    resnet_rules,
)
from nl3d.convert.read import ForeignCheckpoint

_FASTREID_RULES = (
    *resnet_rules(r"backbone\."),
    *NON_LOCAL_RULES,
    (r"heads\.(?:bnneck|bottleneck\.0)\.(\w+)", r"head.bn.\1"),
    (r"heads\.(?:classifier\.)?weight", r"head.classifier.weight"),
    (r"heads\.pool_layer\.p", r"head.pool.p"),
    (r"pixel_(?:mean|std)", None),  # preprocessing, read by _prepare_fastreid
)


def _prepare_fastreid(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Non-local blocks stand beside the stages; current names show another padding of the stem's pool."""
    moved = place_after_last_blocks(tensors, r"backbone\.")
    network: dict[str, Any] = {}
    if holds(tensors, r"heads\.weight|heads\.bottleneck\.0\..+"):  # current names: the stem's pool changed with them
        network |= {"stem_pool_padding": 0, "stem_pool_ceil_mode": True}
    return moved, network


def _finalize_fastreid(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
    """Its buffers say how images are normalised, in 0 to 255."""
    preprocessing: dict[str, Any] = {}
    for key, name in (("pixel_mean", "mean"), ("pixel_std", "std")):
        values = checkpoint.tensors.get(key)
        if values is not None and not values.is_meta and values.numel() == 3:
            preprocessing[name] = tuple(round(value / 255, 6) for value in values.flatten().tolist())
    return ({"pool": "gem"} if "head.pool.p" in tensors else {}), preprocessing


_FASTREID: dict[str, Any] = {
    "rank": 4,
    "excluded_keys": (r"backbone\.conv1\.conv\.weight", r"(?:bottleneck|classifier)\..+"),
    "rules": _FASTREID_RULES,
    "biased": (BLOCK_OUTPUT,),
    "prepare": _prepare_fastreid,
    "finalize": _finalize_fastreid,
    "infer_if": lambda checkpoint: holds(checkpoint.tensors, r"heads\..+"),
    "is_reid": True,
    "preprocessing": PERSONS,
}
_NOT_AGW = (r"backbone\.NL_\d\..+", r"heads\.pool_layer\.p")

FASTREID_BOT = Family(
    name="fastreid_bot",
    about="bag of tricks, ResNet with a batch norm neck; names of v0.1.1 and current ones",
    url="https://github.com/JDAI-CV/fast-reid",
    license="Apache-2.0",
    required_keys=(r"backbone\.layer[1-4]\.\d+\.conv1\.weight",),
    **{**_FASTREID, "excluded_keys": (*_FASTREID["excluded_keys"], *_NOT_AGW)},
    network={"last_stride": 1},
)

FASTREID_AGW = Family(
    name="fastreid_agw",
    about="AGW, ResNet with 2D non-local blocks, GeM pooling and a batch norm neck",
    url="https://github.com/JDAI-CV/fast-reid",
    license="Apache-2.0",
    required_keys=(r"backbone\.layer[1-4]\.\d+\.conv1\.weight", "|".join(_NOT_AGW)),
    **_FASTREID,
    network={
        "last_stride": 1,
        "non_local_mode": "dot_product",
        "non_local_time_window": 1,  # frame by frame, as on images
        "pool": "gem",
    },
)
