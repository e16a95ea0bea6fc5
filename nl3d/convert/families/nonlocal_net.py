"""facebookresearch/video-nonlocal-net: its Caffe2 blobs, and Tushar-N/pytorch-resnet3d's names."""

from __future__ import annotations

from nl3d.convert.families.blobs import BLOB, BLOB_RULES
from nl3d.convert.family import (
    BLOCK_OUTPUT,
    FLAT_BLOCK,
    KINETICS,
    Family,
    Settings,
    Tensors,
    has_kernel,
    holds,
    resnet_rules,
)
from nl3d.convert.read import ForeignCheckpoint


def _match_nonlocal_net(tensors: Tensors) -> bool:
    """Accept no Slow network, nor 101 layers with blocks after 1, 3 and 5: those are PySlowFast's."""
    if has_kernel(tensors, FLAT_BLOCK, spatial=True) or has_kernel(tensors, r"layer.*conv2\.weight", spatial=True):
        return False
    early = has_kernel(tensors, r"conv1_w", spatial=True) or has_kernel(tensors, r"res[23]_.*_w", spatial=False)
    slow = not early and has_kernel(tensors, r"res[45]_.*_w", spatial=False)
    return not (slow or ("res4_22_branch2a_w" in tensors and holds(tensors, r"nonlocal_conv4_[135]_.*")))


def _finalize_nonlocal_net(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
    """Files with folded norms ("affine") attend within groups of four frames in the second stage."""
    if holds(checkpoint.tensors, r".*(?:_rm|\.running_mean)") or not holds(tensors, r"layer2\.non_local\d+\..+"):
        return {}, {}
    return {"non_local_time_window": {"layer2": 4}}, {}


NONLOCAL_NET = Family(
    name="tushar_i3res50",
    about="facebookresearch/video-nonlocal-net (32x2): its Caffe2 .pkl, and Tushar-N/pytorch-resnet3d's names",
    url="https://github.com/facebookresearch/video-nonlocal-net",
    license="CC-BY-NC-4.0",
    required_keys=(rf"{FLAT_BLOCK}|{BLOB}",),
    excluded_keys=(
        r"classifier\..+",
        r"bn\..+",
        r"head\..+",
        r".*non_local\d+\..+",
        r"layer\d\.\d+\.theta\..+",
        r"t_.*",
    ),
    rank=5,
    match=_match_nonlocal_net,
    rules=(
        (r"((?:bn1|layer[1-4]\.\d+\.(?:bn[123]|downsample\.1)))\.scale", r"\1.weight"),
        *resnet_rules(),
        (r"(layer[1-4])\.(\d+)\.nl\.bn\.scale", r"\1.non_local\2.bn.weight"),
        (r"(layer[1-4])\.(\d+)\.nl\.(theta|phi|g|bn)\.(\w+)", r"\1.non_local\2.\3.\4"),
        (r"(layer[1-4])\.(\d+)\.nl\.out\.(\w+)", r"\1.non_local\2.w_z.\3"),
        (r"fc\.(weight|bias)", r"head.classifier.\1"),
        *BLOB_RULES,
    ),
    biased=(BLOCK_OUTPUT,),
    network={
        "stem_stride": (2, 2, 2),
        "stem_pool_kernel": (2, 3, 3),
        "stem_pool_stride": (2, 2, 2),
        "stem_pool_padding": (0, 0, 0),
        "layer1_time_pool": 2,
        "non_local_scale": True,
        "non_local_subsample": "before",
    },
    finalize=_finalize_nonlocal_net,
    preprocessing={**KINETICS, "num_frames": 32, "frame_step": 2},
)
