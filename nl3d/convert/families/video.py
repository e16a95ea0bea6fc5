"""Action classifiers: Hara's 3D-ResNets, pytorchvideo, mmaction2."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from nl3d.convert.family import (
    Family,
    Settled,
    Tensors,
    blocks_of,
    has_kernel,
    holds,
    resnet_rules,
)
from nl3d.convert.read import ForeignCheckpoint

KINETICS = {
    "mean": (0.45, 0.45, 0.45),
    "std": (0.225, 0.225, 0.225),
    "input_size": (3, 224, 224),
    "num_frames": 8,
    "frame_step": 8,
}
FLAT_BLOCK = r"layer[1-4]\.\d+\.conv1\.weight"


def _settle_hara(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settled:
    """The files of 2018, whose keys begin with ``module.``, take 0 to 255 less the mean, undivided."""
    if not checkpoint.prefix:
        return {}, {}
    mean = tuple(round(value / 255, 6) for value in (114.7748, 107.7354, 99.4750))
    return {}, {"mean": mean, "std": (1 / 255, 1 / 255, 1 / 255)}


HARA = Family(
    name="hara_r3d",
    about="3D ResNet, shortcuts A and B, files of 2018 and 2020",
    url="https://github.com/kenshohara/3D-ResNets-PyTorch",
    license="MIT",
    marks=(FLAT_BLOCK,),
    unlike=(r"classifier\..+", r"bn\..+", r"head\..+", r".*\.nl\..+", r".*non_local\d+\..+", r".*\.theta\..+"),
    rank=5,
    may_be=lambda tensors: not has_kernel(tensors, r"layer[1-4]\.\d+\.conv1\.weight", spatial=False),
    rules=(*resnet_rules(), (r"fc\.(weight|bias)", r"head.classifier.\1")),
    network={
        "stem_pool_kernel": (3, 3, 3),
        "stem_pool_stride": (2, 2, 2),
        "stem_pool_padding": (1, 1, 1),
        "time_strides": (1, 2, 2, 2),
    },
    settle=_settle_hara,
    preprocessing={
        "mean": (0.4345, 0.4051, 0.3775),
        "std": (0.2768, 0.2713, 0.2737),
        "input_size": (3, 112, 112),
        "num_frames": 16,
        "frame_step": 1,
    },
)


def _relocate_pytorchvideo(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
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
    marks=(r"blocks\.\d+\.res_blocks\.\d+\.branch2\.conv_a\.weight",),
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
    relocate=_relocate_pytorchvideo,
    preprocessing=KINETICS,
)


def _relocate_mmaction2(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    pooled = holds(tensors, r".*\.non_local_block\.g\.0\.conv\.weight")
    return dict(tensors), {"non_local_subsample": "after"} if pooled else {}


def _settle_mmaction2(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settled:
    """Time is strided in the stem, except where every block spans time ("heavy") or the stem does not ("slow only")."""
    blocks = blocks_of(tensors, r"layer(\d)\.(\d+)\.")
    spans = [tensors[f"layer{s}.{b}.conv1.weight"].shape[2] > 1 for s, numbers in blocks.items() for b in numbers
             if f"layer{s}.{b}.conv1.weight" in tensors]  # fmt: skip
    slow_only = "conv1.weight" in tensors and tensors["conv1.weight"].shape[2] == 1
    if slow_only:
        return {"layer1_time_pool": 1}, {"frame_step": 8, "num_frames": 8}
    if all(spans):
        return {}, {}
    return {"stem_stride": (2, 2, 2), "stem_pool_stride": (2, 2, 2)}, {}


_NL_BLOCK = r"backbone\.(layer[1-4])\.(\d+)\.non_local_block"
_CONV = r"backbone\.(layer[1-4]\.\d+)\.conv([123])"

MMACTION2 = Family(
    name="mmaction2_i3d",
    about="I3D with and without non-local blocks, heavy I3D, SlowOnly",
    url="https://github.com/open-mmlab/mmaction2",
    license="Apache-2.0",
    marks=(r"backbone\.layer[1-4]\.\d+\.conv1\.conv\.weight",),
    rank=5,
    rules=(
        (r"backbone\.conv1\.conv\.weight", r"conv1.weight"),
        (r"backbone\.conv1\.bn\.(\w+)", r"bn1.\1"),
        (rf"{_CONV}\.conv\.(\w+)", r"\1.conv\2.\3"),
        (rf"{_CONV}\.bn\.(\w+)", r"\1.bn\2.\3"),
        (r"backbone\.(layer[1-4]\.\d+)\.downsample\.conv\.(\w+)", r"\1.downsample.0.\2"),
        (r"backbone\.(layer[1-4]\.\d+)\.downsample\.bn\.(\w+)", r"\1.downsample.1.\2"),
        (rf"{_NL_BLOCK}\.(theta|phi|g)\.(?:0\.)?conv\.(\w+)", r"\1.non_local\2.\3.\4"),
        (rf"{_NL_BLOCK}\.concat_project\.conv\.(\w+)", r"\1.non_local\2.w_f.\3"),
        (rf"{_NL_BLOCK}\.conv_out\.conv\.(\w+)", r"\1.non_local\2.w_z.\3"),
        (rf"{_NL_BLOCK}\.conv_out\.bn\.(\w+)", r"\1.non_local\2.bn.\3"),
        (r"cls_head\.fc_cls\.(weight|bias)", r"head.classifier.\1"),
        (r"data_preprocessor\.(?:mean|std)", None),
    ),
    relocate=_relocate_mmaction2,
    network={"layer1_time_pool": 2},
    settle=_settle_mmaction2,
    preprocessing={
        "mean": tuple(round(value / 255, 6) for value in (123.675, 116.28, 103.53)),
        "std": tuple(round(value / 255, 6) for value in (58.395, 57.12, 57.375)),
        "input_size": (3, 224, 224),
        "num_frames": 32,
        "frame_step": 2,
    },
)
