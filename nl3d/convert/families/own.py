"""nl3d's own checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from nl3d.convert.family import FLAT_BLOCK, Family, Settings, Tensors, holds, resnet_rules
from nl3d.convert.read import ForeignCheckpoint
from nl3d.hub.pretrained import parse_config
from nl3d.models.options import KEYWORDS
from nl3d.models.resnet3d import IMAGENET_CFG


def _match_own(tensors: Tensors) -> bool:
    """Our own names are seen in head, non-local blocks and separable kernels; without them the file may be others'."""
    return holds(tensors, r"head\..+|layer\d\.non_local\d+\..+|.*\.(?:temporal|spatial)\.weight") or not holds(
        tensors, r"(?:fc|classifier|bn|layer\d\.\d+\.(?:nl|theta))\..+"
    )


def _finalize_own(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settings:
    """A file that nl3d wrote says under ``config`` how its network was built and how its clips are prepared."""
    config = checkpoint.extras.get("config")
    if isinstance(config, str):
        config = parse_config(config, checkpoint.source)
    if not isinstance(config, Mapping):
        return {}, {}
    known = KEYWORDS.keys() - {"num_classes"}
    network = {key: value for key, value in config.items() if key in known}
    said = {**(config.get("pretrained_cfg") or {}), **(config.get("clips") or {})}
    return network, {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}


OWN = Family(
    name="nl3d",
    about="any ResNet3d of this package",
    required_keys=(FLAT_BLOCK.replace(r"conv1\.weight", r"conv1\.(?:(?:temporal|spatial)\.)?weight"),),
    excluded_keys=(r"(?:fc|classifier|bn)\..+", r".*\.nl\..+", r"layer\d\.\d+\.theta\..+"),
    rank=5,
    match=_match_own,
    rules=(
        *resnet_rules(),
        (r"(layer[1-4]\.\d+\.conv[123]\.(?:temporal|spatial)\.weight)", r"\1"),
        (r"(layer[1-4]\.non_local\d+\.(?:theta|phi|g|w_z|w_f|bn)\.\w+)", r"\1"),
        (r"(head\.(?:fc|bn|projection|classifier|pool)\.\w+)", r"\1"),
    ),
    finalize=_finalize_own,
    is_reid=True,
    preprocessing=IMAGENET_CFG,
)
