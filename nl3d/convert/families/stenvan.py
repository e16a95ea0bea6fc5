"""STE-NVAN: video re-identification by an image ResNet with five non-local blocks over the whole clip (NVAN).

Its ``STE_NVAN.pth`` has the keys and shapes of ``NVAN.pth`` and computes something else: attention between stripes of
two frames, time halved on the way. Only the order of keys and the versions that ``torch.save`` keeps of modules differ.
"""

from __future__ import annotations

import re
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

_PREFIX = r"(?:features\.)?backbone\."
_NVAN_ORDER, _STE_ORDER = ("g", "W", "theta", "phi"), ("g", "theta", "phi", "W")
_STRIPES = "the network of STE_NVAN.pth, with attention between stripes, which ResNet3d has no place for"


def _order(tensors: Tensors) -> tuple[str, ...]:
    """Layers of the first non-local block in the order of the file; nothing without one."""
    keys = (re.fullmatch(rf"{_PREFIX}(NL_\d\.\d+)\.(\w+)\..+", key) for key in tensors)
    found = [(match[1], match[2]) for match in keys if match]
    return tuple(dict.fromkeys(layer for block, layer in found if block == found[0][0]))


def _prepare(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return place_after_last_blocks(tensors, _PREFIX), {}


def _finalize(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
    """Refuse what is known to be STE-NVAN, whichever family was named."""
    modules = checkpoint.extras.get("_metadata", {})
    if _order(checkpoint.tensors) == _STE_ORDER or any(re.search(r"NL_\d\.\d+\.pool$", name) for name in modules):
        raise ValueError(f"{checkpoint.source} must be NVAN or the frame-wise baseline, but is {_STRIPES}")
    return {}, {}


def _infer(checkpoint: ForeignCheckpoint) -> bool:
    """Only files under ``features.``, without non-local blocks or with theirs in the order of either network."""
    return holds(checkpoint.tensors, r"features\..+") and _order(checkpoint.tensors) in ((), _NVAN_ORDER, _STE_ORDER)


STENVAN = Family(
    name="stenvan",
    about="NVAN and the frame-wise baseline, ResNet with a batch norm neck",
    url="https://github.com/jackie840129/STE-NVAN",
    license="MIT",
    required_keys=(rf"{_PREFIX}layer[1-4]\.\d+\.conv1\.weight", r"bottleneck\..+"),
    excluded_keys=(r"heads\..+", r"head\..+", r"bn\..+"),
    rank=4,
    infer_if=_infer,
    ambiguous_with="STE_NVAN.pth of the same keys and shapes, which computes something else and must not be read as it",
    rules=(
        *resnet_rules(_PREFIX),
        *NON_LOCAL_RULES,
        (r"bottleneck\.(\w+)", r"head.bn.\1"),
        (r"classifier\.weight", "head.classifier.weight"),
    ),
    biased=(BLOCK_OUTPUT,),
    prepare=_prepare,
    finalize=_finalize,
    network={"last_stride": 1, "stem_relu": False},
    is_reid=True,
    preprocessing={**PERSONS, "frame_step": 8},
)
