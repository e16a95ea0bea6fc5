"""pytorchvideo: action classifiers."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from nl3d.convert.family import KINETICS, Family, Tensors


def _prepare_pytorchvideo(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The stages are the blocks in their order; one number left out after the first stage is its max-pool over time."""
    stages = sorted({number for number in _numbers(tensors, r"blocks\.(\d+)\.res_blocks\.")})
    if len(stages) != 4:
        raise ValueError(f"the file must have four stages under 'blocks', got {stages}")
    head = _numbers(tensors, r"blocks\.(\d+)\.proj\.")
    names = {0: "stem", **{number: f"layer{stage}" for stage, number in enumerate(stages, 1)}}
    names |= dict.fromkeys(head, "head")
    moved: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(r"blocks\.(\d+)\.(?:res_blocks\.)?(.+)", key)
        moved[f"{names.get(int(match[1]), match[1])}.{match[2]}" if match else key] = tensor
    return moved, {"layer1_time_pool": stages[1] - stages[0]}


def _numbers(tensors: Tensors, pattern: str) -> set[int]:
    return {int(match[1]) for key in tensors if (match := re.match(pattern, key))}


_BRANCH = r"(layer[1-4]\.\d+)"

PYTORCHVIDEO = Family(
    name="pytorchvideo",
    about="I3D, Slow and C2D",
    url="https://github.com/facebookresearch/pytorchvideo",
    license="Apache-2.0",
    required_keys=(r"blocks\.\d+\.res_blocks\.\d+\.branch2\.conv_a\.weight",),
    rank=5,
    rules=(
        (r"stem\.conv\.weight", r"conv1.weight"),
        (r"stem\.norm\.(\w+)", r"bn1.\1"),
        (rf"{_BRANCH}\.branch1_conv\.weight", r"\1.downsample.0.weight"),
        (rf"{_BRANCH}\.branch1_norm\.(\w+)", r"\1.downsample.1.\2"),
        *((rf"{_BRANCH}\.branch2\.conv_{x}\.(\w+)", rf"\1.conv{n}.\2") for n, x in enumerate("abc", 1)),
        *((rf"{_BRANCH}\.branch2\.norm_{x}\.(\w+)", rf"\1.bn{n}.\2") for n, x in enumerate("abc", 1)),
        (r"head\.proj\.(weight|bias)", r"head.classifier.\1"),
    ),
    prepare=_prepare_pytorchvideo,
    preprocessing=KINETICS,
)
