"""reid-strong-baseline: image re-identification with a batch norm neck."""

from __future__ import annotations

from nl3d.convert.families.torchvision import PERSONS
from nl3d.convert.family import Family, holds, resnet_rules

STRONG_BASELINE = Family(
    name="reid_strong_baseline",
    about="ResNet with a batch norm neck",
    url="https://github.com/michuanhaohao/reid-strong-baseline",
    license="MIT",
    required_keys=(r"base\.layer[1-4]\.\d+\.conv1\.weight",),
    rank=4,
    infer_if=lambda checkpoint: holds(checkpoint.tensors, r"bottleneck\..+"),
    rules=(
        *resnet_rules(r"base\."),
        (r"bottleneck\.(\w+)", r"head.bn.\1"),
        (r"classifier\.(weight|bias)", r"head.classifier.\1"),
    ),
    network={"last_stride": 1, "stem_relu": False},
    is_reid=True,
    preprocessing=PERSONS,
)
