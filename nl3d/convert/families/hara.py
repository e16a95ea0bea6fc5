"""Hara et al.'s 3D-ResNets: action classifiers."""

from __future__ import annotations

from nl3d.convert.family import FLAT_BLOCK, Family, Settings, Tensors, has_kernel, resnet_rules
from nl3d.convert.read import ForeignCheckpoint


def _finalize_hara(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
    """Describe the preprocessing of 2018, when keys began with ``module.``: 0 to 255 less the mean, not divided."""
    if not checkpoint.prefix:
        return {}, {}
    mean = tuple(round(value / 255, 6) for value in (114.7748, 107.7354, 99.4750))
    return {}, {"mean": mean, "std": (1 / 255, 1 / 255, 1 / 255)}


def _infer_hara(checkpoint: ForeignCheckpoint) -> bool:
    """Only files for RGB clips: medical 3D ResNets of one channel have the same names, but other strides."""
    stem = checkpoint.tensors.get("conv1.weight")
    return stem is None or stem.shape[1] == 3


HARA = Family(
    name="hara_r3d",
    about="3D ResNet, shortcuts A and B, files of 2018 and 2020",
    url="https://github.com/kenshohara/3D-ResNets-PyTorch",
    license="MIT",
    required_keys=(FLAT_BLOCK,),
    excluded_keys=(r"classifier\..+", r"bn\..+", r"head\..+", r".*\.nl\..+", r".*non_local\d+\..+", r".*\.theta\..+"),
    rank=5,
    infer_if=_infer_hara,
    match=lambda tensors: not has_kernel(tensors, r"layer[1-4]\.\d+\.conv1\.weight", spatial=False),
    rules=(*resnet_rules(), (r"fc\.(weight|bias)", r"head.classifier.\1")),
    network={
        "stem_pool_kernel": (3, 3, 3),
        "stem_pool_stride": (2, 2, 2),
        "stem_pool_padding": (1, 1, 1),
        "time_strides": (1, 2, 2, 2),
    },
    finalize=_finalize_hara,
    preprocessing={
        "mean": (0.4345, 0.4051, 0.3775),
        "std": (0.2768, 0.2713, 0.2737),
        "input_size": (3, 112, 112),
        "num_frames": 16,
        "frame_step": 1,
    },
)
