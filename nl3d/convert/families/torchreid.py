"""torchreid: image re-identification."""

from __future__ import annotations

from nl3d.convert.families.torchvision import PERSONS
from nl3d.convert.family import Family, Settings, Tensors, resnet_rules
from nl3d.convert.read import ForeignCheckpoint


def _finalize_torchreid(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
    """The network with a bottleneck, ``resnet50_fc512``, ends it in a ReLU and does not stride the last stage."""
    return ({"last_stride": 1, "negative_slope": 0.0} if "head.fc.weight" in tensors else {}), {}


TORCHREID = Family(
    name="torchreid",
    about="ResNet, with or without a fully connected bottleneck",
    url="https://github.com/KaiyangZhou/deep-person-reid",
    license="MIT",
    required_keys=(r"layer[1-4]\.\d+\.conv1\.weight", r"classifier\.weight|fc\.0\.weight"),
    excluded_keys=(r"fc\.(?:weight|bias)", r"bottleneck\..+", r"bn\..+"),
    rank=4,
    rules=(
        *resnet_rules(),
        (r"fc\.0\.(weight|bias)", r"head.fc.\1"),
        (r"fc\.1\.(\w+)", r"head.bn.\1"),
        (r"classifier\.(weight|bias)", r"head.classifier.\1"),
    ),
    finalize=_finalize_torchreid,
    is_reid=True,
    preprocessing=PERSONS,
)
