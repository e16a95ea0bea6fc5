"""nl3d's networks in timm's registry, on request: ``create_model``, ``list_models``, ``list_pretrained``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from torch import nn

from nl3d.weights.open import HUB_PREFIX, open_weights, spec_cfg
from nl3d.weights.records import FACTORIES, list_weights

GENERIC = ("resnet3d", "framewise")
"""timm's names of networks of other blocks or backbones than the named ones; config.json holds the rest."""

INFLATED_PREFIX = "inflated_"
CONVOLUTIONAL = (
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

TIMM_NAMES = {"in_chans": "in_channels", "drop_rate": "dropout", "global_pool": "pool"}
_FEATURE_OPTIONS = ("out_indices", "feature_cls")

default_cfgs: dict[str, Any] = {}  # timm looks here for what a network's checkpoints are


def register_timm(*, inflated: bool = False) -> None:
    """Add nl3d's networks and the tags of their checkpoints to timm's registry; a second call changes nothing.

    Args:
        inflated: Whether to add ``inflated_NAME`` for every convolutional network of timm as well, nearly a thousand
            names; each builds :func:`nl3d.inflated` of ``NAME``.

    Example:
        >>> import timm
        >>> nl3d.register_timm()
        >>> timm.list_models("resnet3d50*")
        ['resnet3d50', 'resnet3d50_nl']
    """
    import timm
    from timm.models import is_model, register_model

    if not is_model(GENERIC[0]):
        default_cfgs.update(_default_cfgs())
        for name in (*FACTORIES, *GENERIC):
            register_model(_entrypoint(name))
    if inflated and not timm.list_models(f"{INFLATED_PREFIX}*"):
        for module in CONVOLUTIONAL:
            for name in timm.list_models(module=module):
                register_model(_inflated_entrypoint(name))


def _default_cfgs() -> dict[str, Any]:
    from timm.models import PretrainedCfg, generate_default_cfgs

    known = {field.name for field in fields(PretrainedCfg)}
    return dict(
        generate_default_cfgs(
            {
                f"{model}.{spec.name}": {
                    **{key: value for key, value in spec_cfg(spec).items() if key in known and key != "tag"},
                    "num_classes": 0,
                    "interpolation": "bilinear",
                    "crop_pct": 1.0,
                    "first_conv": "conv1" if model.startswith("resnet3d") else "backbone.conv1",
                    "classifier": "head.classifier",
                }
                for model in FACTORIES
                for spec in list_weights(model)
            }
        )
    )


def _inflated_entrypoint(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> nn.Module:
        for ignored in ("pretrained_cfg_overlay", "cache_dir"):
            if options.pop(ignored, None) is not None:
                raise ValueError(
                    f"{ignored} must be left out for {INFLATED_PREFIX}{name}; pass a file or tag to nl3d.inflated"
                )
        from nl3d.weights.inflated import inflated

        tag = pretrained_cfg if isinstance(pretrained_cfg, str) else "imagenet"
        return inflated(name, tag if pretrained else None, **options)

    create.__name__ = create.__qualname__ = f"{INFLATED_PREFIX}{name}"
    create.__doc__ = f"``nl3d.inflated({name!r})`` for :func:`timm.create_model`."
    return create


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return _create(name, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"``nl3d.{name}`` for :func:`timm.create_model`."
    return create


def _create(
    name: str,
    pretrained: bool,
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: Any = None,
    features_only: bool = False,
    num_classes: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Treat the arguments as timm's builder does; nl3d finds, converts and fills in the weights."""
    from nl3d.weights import build, factories

    kwargs.pop("pretrained_model_args", None)  # timm repeats these in kwargs
    cfg = {**_as_dict(pretrained_cfg), **(pretrained_cfg_overlay or {})}
    weights = open_weights(name, _weights_of(name, cfg), cache_dir=cache_dir) if pretrained else None
    if num_classes is None:
        num_classes = cfg.get("num_classes", 0) if cfg.get("source") else 0
    features = {key: kwargs.pop(key) for key in _FEATURE_OPTIONS if key in kwargs}
    options = {TIMM_NAMES.get(key, key): value for key, value in kwargs.items()}
    if name in GENERIC:
        construct = build.build_resnet3d if name == "resnet3d" else build.build_framewise
        model: nn.Module = construct(name, weights, num_classes, options)
    else:
        model = getattr(factories, name)(weights, num_classes=num_classes, **options)
    return _feature_maps(name, model, features) if features_only else model


def _feature_maps(name: str, model: Any, features: dict[str, Any]) -> nn.Module:
    """Put timm's own wrapper around the stages."""
    from timm.models import build_model_with_cfg

    if not hasattr(model, "feature_info"):
        raise ValueError(f"features_only must be False for {name}; ask timm for the feature maps of its image network")
    cfg = {key: value for key, value in model.pretrained_cfg.items() if key in ("input_size", "mean", "std")}
    wrapped: nn.Module = build_model_with_cfg(
        lambda **_: model, name, pretrained=False, pretrained_cfg=cfg, features_only=True, **features
    )
    return wrapped


def _as_dict(pretrained_cfg: Any) -> dict[str, Any]:
    """Return a dictionary for each of timm's ways to name a checkpoint: a tag, a dictionary, its record or nothing."""
    if isinstance(pretrained_cfg, str):
        return {"tag": pretrained_cfg}
    if is_dataclass(pretrained_cfg) and not isinstance(pretrained_cfg, type):
        return {key: value for key, value in asdict(pretrained_cfg).items() if value is not None}
    return dict(pretrained_cfg or {})


def _weights_of(name: str, cfg: dict[str, Any]) -> str:
    """Translate timm's record of a checkpoint into a value of ``weights=``."""
    if cfg.get("file"):
        return str(cfg["file"])
    if cfg.get("hf_hub_id"):
        return HUB_PREFIX + cfg["hf_hub_id"]
    if cfg.get("url") or cfg.get("state_dict"):
        raise ValueError("pretrained_cfg must name weights by tag, file or hf_hub_id, got url or state_dict")
    if cfg.get("tag"):
        return str(cfg["tag"])
    specs = list_weights(name) if name in FACTORIES else []
    if not specs:
        raise ValueError(f"pretrained must be False for {name}, which has no weights of its own")
    return specs[0].name
