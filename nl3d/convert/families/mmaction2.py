"""mmaction2: action classifiers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nl3d.convert.family import Family, Settings, Tensors, blocks_of, holds
from nl3d.convert.read import ForeignCheckpoint


def _prepare_mmaction2(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    pooled = holds(tensors, r".*\.non_local_block\.g\.0\.conv\.weight")
    return dict(tensors), {"non_local_subsample": "after"} if pooled else {}


def _finalize_mmaction2(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
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
    required_keys=(r"backbone\.layer[1-4]\.\d+\.conv1\.conv\.weight",),
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
    prepare=_prepare_mmaction2,
    network={"layer1_time_pool": 2},
    finalize=_finalize_mmaction2,
    preprocessing={
        "mean": tuple(round(value / 255, 6) for value in (123.675, 116.28, 103.53)),
        "std": tuple(round(value / 255, 6) for value in (58.395, 57.12, 57.375)),
        "input_size": (3, 224, 224),
        "num_frames": 32,
        "frame_step": 2,
    },
)
