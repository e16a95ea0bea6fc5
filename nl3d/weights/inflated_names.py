"""``timm.create_model("inflated_NAME")`` for every convolutional network of timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

PREFIX = "inflated_"
FAMILIES = (
    "byoanet", "byobnet", "coat", "convmixer", "convnext", "cpubone", "crossvit", "csatv2", "cspnet", "cspnext",
    "davit", "densenet", "dla", "dpn", "edgenext", "efficientformer", "efficientformer_v2", "efficientnet",
    "efficientvim", "efficientvit_mit", "efficientvit_msra", "fasternet", "fastvit", "focalnet", "gcvit", "ghostnet",
    "hardcorenas", "hgnet", "hrnet", "iformer", "inception_next", "inception_resnet_v2", "inception_v3",
    "inception_v4", "lcnetv2", "levit", "lowformer", "mambaout", "maxxvit", "metaformer", "mobilenetv3",
    "mobilenetv5", "mobilevit", "mvitv2", "nasnet", "nextvit", "nfnet", "pnasnet", "pvt_v2", "rdnet", "regnet",
    "repghost", "repvit", "res2net", "resnest", "resnet", "resnetv2", "rexnet", "selecsls", "senet", "shvit",
    "sknet", "starnet", "swiftformer", "tiny_vit", "tresnet", "twins", "vgg", "visformer",
    "vision_transformer_hybrid", "vitamin", "volo", "vovnet", "xception", "xception_aligned", "xcit",
)  # fmt: skip
"""timm's modules whose networks have at least four spatial convolutions."""


def register_inflated() -> None:
    """Put ``inflated_NAME`` into timm's registry for every network of the convolutional families."""
    import timm
    from timm.models import register_model

    for family in FAMILIES:
        for name in timm.list_models(module=family):
            register_model(_entrypoint(name))


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> nn.Module:
        for ignored in ("pretrained_cfg_overlay", "cache_dir"):
            if options.pop(ignored, None) is not None:
                raise ValueError(f"{ignored} must be left out for {PREFIX}{name}; pass a file or tag to nl3d.inflated")
        tag = pretrained_cfg if isinstance(pretrained_cfg, str) else "imagenet"
        from nl3d.weights.inflated import inflated

        return inflated(name, tag if pretrained else None, **options)

    create.__name__ = create.__qualname__ = f"{PREFIX}{name}"
    create.__doc__ = f"``nl3d.inflated({name!r})`` for :func:`timm.create_model`."
    return create
