"""AP3D: video re-identification with non-local blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nl3d.convert.families.torchvision import PERSONS
from nl3d.convert.family import BLOCK_OUTPUT, Family, Tensors, blocks_of, holds, resnet_rules


def _prepare_ap3d(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
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
    required_keys=(r"layer[1-4]\.\d+\.conv1\.weight", r"classifier\..+|bn\..+|layer[1-4]\.\d+\.theta\..+"),
    excluded_keys=(r"head\..+", r"layer[1-4]\.non_local\d+\..+", r".*\.nl\..+"),
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
    prepare=_prepare_ap3d,
    network={"last_stride": 1, "pool": "frame_max"},
    is_reid=True,
    preprocessing={**PERSONS, "num_frames": 4, "frame_step": 8},
)
