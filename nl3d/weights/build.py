"""From a name, its weights and its options to a network: built on the meta device, then filled."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from nl3d.convert.checkpoint import convert_checkpoint
from nl3d.convert.read import read_checkpoint
from nl3d.hub.fill import fill_model, new_modules, on_meta, without_other_classifier
from nl3d.hub.pretrained import PretrainedMixin
from nl3d.inflate.state_dict import inflate_state_dict
from nl3d.layers.head import LinearHead
from nl3d.models.resnet3d import ResNet3d
from nl3d.weights.open import Checkpoint, ForeignFile, open_weights

if TYPE_CHECKING:
    from nl3d.models.framewise import FramewiseNet

Weights: TypeAlias = "str | os.PathLike[str] | Checkpoint | ForeignFile | None"
ModelT = TypeVar("ModelT", bound=nn.Module)


def build_resnet3d(
    name: str, weights: Weights, num_classes: int, options: Mapping[str, Any], **architecture: Any
) -> ResNet3d:
    """Build a 3D ResNet; ``options`` win over what the weights were saved with, and that over ``architecture``."""
    _refuse_fixed(name, options, architecture.keys() - {"non_local"})
    if weights is None:
        return _described(ResNet3d(**{**architecture, **options}, num_classes=num_classes), name, {})
    checkpoint = _opened(name, weights)
    if isinstance(checkpoint, ForeignFile):
        return _described(_converted(name, checkpoint, num_classes, options, architecture), name, checkpoint.cfg)
    saved = _saved_options(name, ResNet3d, checkpoint, architecture)
    with on_meta():
        model = ResNet3d(**{**architecture, **saved, **options}, num_classes=num_classes)
    if architecture and "non_local" not in (*architecture, *options) and checkpoint.config.get("non_local"):
        raise _with_blocks(name, checkpoint.source)
    fill_model(model, _fitting(checkpoint.tensors, model), new=new_modules(model))
    return _described(_ready(model), name, checkpoint.cfg)


def build_framewise(
    name: str, weights: Weights, num_classes: int, options: Mapping[str, Any], **architecture: Any
) -> FramewiseNet:
    """Build an image network with an aggregation over time; the weights are the image network's, all of them."""
    from nl3d.models.framewise import FramewiseNet  # brings timm, which the 3D networks do without

    _refuse_fixed(name, options, architecture.keys())
    if weights is None:
        return _described(FramewiseNet(**architecture, **options, num_classes=num_classes), name, {})
    checkpoint = _opened(name, weights)
    if isinstance(checkpoint, ForeignFile):
        raise ValueError(
            f"weights of {name} must be an image network's in timm's names, or its own, got {checkpoint.source!r}"
        )
    saved = _saved_options(name, FramewiseNet, checkpoint, architecture)
    with on_meta():
        model = FramewiseNet(**{**architecture, **saved, **options}, num_classes=num_classes)
    own = any(key.startswith("backbone.") for key in checkpoint.tensors)  # written from this very network
    tensors = (
        without_other_classifier(checkpoint.tensors, num_classes)
        if own
        else {f"backbone.{key}": tensor for key, tensor in checkpoint.tensors.items() if not key.startswith("fc.")}
    )
    fill_model(model, tensors, new=new_modules(model))
    return _described(_ready(model), name, checkpoint.cfg)


def _opened(name: str, weights: str | os.PathLike[str] | Checkpoint | ForeignFile) -> Checkpoint | ForeignFile:
    return weights if isinstance(weights, Checkpoint | ForeignFile) else open_weights(name, os.fspath(weights))


def _converted(
    name: str, file: ForeignFile, num_classes: int, options: Mapping[str, Any], architecture: Mapping[str, Any]
) -> ResNet3d:
    """Convert another project's file, which decides what the call does not; image networks are inflated."""
    checkpoint = read_checkpoint(file.path)
    chosen = dict(options)
    if not any(tensor.ndim == 5 for tensor in checkpoint.tensors.values()):
        chosen = {"layout": "separable", "time_kernel": 3, **chosen}
    model = convert_checkpoint(
        checkpoint,
        family=file.family,
        num_classes=num_classes,
        places_if_none=architecture.get("non_local"),
        **chosen,
    )
    own = model.architecture()[0]
    if architecture and own.removesuffix("_nl") != name.removesuffix("_nl"):
        raise ValueError(f"weights {file.source!r} must be of a {name}, but are of a {own}")
    if own.endswith("_nl") and not name.endswith("_nl") and architecture and "non_local" not in options:
        raise _with_blocks(name, file.source)
    return model


def _with_blocks(name: str, source: str) -> ValueError:
    return ValueError(f"weights {source!r} hold non-local blocks, which {name} has none of; use {name}_nl")


def _fitting(tensors: Mapping[str, Tensor], model: ResNet3d) -> Mapping[str, Tensor]:
    """Tensors in the model's names and shapes: an image network's inflated, another classifier dropped."""
    stem = tensors.get("conv1.weight")
    if stem is not None and stem.ndim == 4:
        classifier = tensors.get("fc.weight")
        keep = isinstance(model.head, LinearHead) and classifier is not None and len(classifier) == model.num_classes
        return inflate_state_dict(tensors, model, keep_classifier=keep)
    return without_other_classifier(tensors, model.num_classes)


def _saved_options(
    name: str, kind: type[PretrainedMixin], checkpoint: Checkpoint, architecture: Mapping[str, Any]
) -> dict[str, Any]:
    """Options that a config.json tells of, but for what the factory's name and arguments decide."""
    for key, own in architecture.items():
        saved = checkpoint.config.get(key)
        if key != "non_local" and saved is not None and (saved if isinstance(saved, str) else tuple(saved)) != own:
            raise ValueError(
                f"weights {checkpoint.source!r} must be of a {name} with {key}={own!r}, got {key}={saved!r}; it is a "
                f"{checkpoint.config.get('architecture')}, which {kind.__name__}.from_pretrained builds"
            )
    decided = {"num_classes", *architecture, *(["non_local"] if architecture else [])}
    if "non_local" in architecture and checkpoint.config.get("non_local"):
        decided.discard("non_local")  # what the file's own blocks compute depends on their places
    known = set(kind.option_names()) - decided
    return {key: value for key, value in checkpoint.config.items() if key in known}


def _refuse_fixed(name: str, options: Mapping[str, Any], fixed: Collection[str]) -> None:
    if clash := sorted(options.keys() & set(fixed)):
        raise TypeError(f"{name}() got an unexpected keyword argument {clash[0]!r}, which its name fixes")


def _described(model: ModelT, name: str, cfg: Mapping[str, Any]) -> ModelT:
    model.pretrained_cfg.update({**cfg, "architecture": name})  # type: ignore[operator, union-attr]
    return model


def _ready(model: ModelT) -> ModelT:
    """Move a filled network to the default device, in evaluation mode."""
    device = torch.get_default_device()
    return (model if device.type == "cpu" else model.to(device)).eval()
