"""AP3D: video re-identification with non-local blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nl3d.convert.families.torchvision import PERSONS
from nl3d.convert.family import BLOCK_OUTPUT, OUTPUT_RULES, Family, Tensors, blocks_of, has_kernel, holds, resnet_rules
from nl3d.convert.read import ForeignCheckpoint


def _prepare_ap3d(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Non-local blocks are entries of the stages, so that the residual blocks behind them have other numbers."""
    entries = blocks_of(tensors, r"layer(\d)\.(\d+)\.")
    non_local = blocks_of(tensors, r"layer(\d)\.(\d+)\.(?:theta|phi|g|W)\..+")
    names: dict[str, str] = {}
    for stage, numbers in entries.items():
        count, blocks_beside = 0, set(non_local.get(stage, ()))
        for number in numbers:
            if number in blocks_beside:
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


def _infer_ap3d(checkpoint: ForeignCheckpoint) -> bool:
    """Its blocks are seen in the file, or no flat 3x3 kernel spans time: other projects' 3D networks have such."""
    has_blocks = holds(checkpoint.tensors, r"layer\d\.\d+\.theta\..+")
    return has_blocks or not has_kernel(checkpoint.tensors, r"layer\d\.\d+\.conv2\.weight", spatial=True)


AP3D = Family(
    name="ap3d_nlresnet",
    about="ResNet with non-local blocks and plain (not appearance-preserving) convolutions",
    url="https://github.com/guxinqian/AP3D",
    license="Apache-2.0",
    required_keys=(r"layer[1-4]\.\d+\.conv1\.weight", r"classifier\..+|bn\..+|layer[1-4]\.\d+\.theta\..+"),
    excluded_keys=(r"head\..+", r"layer[1-4]\.non_local\d+\..+", r".*\.nl\..+"),
    rank=5,
    infer_if=_infer_ap3d,
    rules=(
        *resnet_rules(),
        (r"(layer[1-4]\.\d+\.conv2)\.conv3d\.(\w+)", r"\1.\2"),
        (r"(layer[1-4]\.non_local\d+\.(?:theta|phi|g))\.(?:0\.)?(weight|bias)", r"\1.\2"),
        *OUTPUT_RULES,
        (r"bn\.(\w+)", r"head.bn.\1"),
        (r"classifier\.(weight|bias)", r"head.classifier.\1"),
    ),
    biased=(BLOCK_OUTPUT, r"head\.classifier"),
    prepare=_prepare_ap3d,
    network={"last_stride": 1, "pool": "frame_max"},
    is_reid=True,
    preprocessing={**PERSONS, "num_frames": 4, "frame_step": 8},
)
