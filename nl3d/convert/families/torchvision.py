"""Image classifiers: torchvision's ResNets, and timm's of the same names."""

from __future__ import annotations

from dataclasses import replace

from nl3d.convert.family import Family, resnet_rules

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "num_frames": 8, "frame_step": 1}

TORCHVISION = Family(
    name="torchvision",
    about="ResNet of 18 to 152 layers",
    url="https://github.com/pytorch/vision",
    license="BSD-3-Clause",
    required_keys=(r"layer[1-4]\.\d+\.conv1\.weight",),
    excluded_keys=(r"classifier\..+", r"fc\.\d.*", r".*\.(?:theta|phi|g|non_local\d+)\..+", r"head\..+", r"bn\..+"),
    rank=4,
    rules=(*resnet_rules(), (r"fc\.(weight|bias)", r"head.classifier.\1")),
    preprocessing={**IMAGENET, "input_size": (3, 224, 224)},
)

TIMM = replace(
    TORCHVISION,
    name="timm",
    about="ResNet of 18 to 152 layers, same as torchvision's",
    url="https://github.com/huggingface/pytorch-image-models",
    license="Apache-2.0",
    requires_explicit_family=True,
)

PERSONS = {**IMAGENET, "input_size": (3, 256, 128)}
"""Preprocessing of most re-identification projects: ImageNet's mean and deviation, pedestrians of 256x128."""
