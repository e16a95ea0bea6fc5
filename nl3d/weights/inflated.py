"""Any image network of timm as a video network, by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from nl3d.data.clips.processor import ClipProcessor
from nl3d.hub.fetch import fetch
from nl3d.hub.fill import fill_model, new_modules, read_safetensors, without_other_classifier
from nl3d.inflate import Inflate2dTo3d
from nl3d.models.framewise import FramewiseNet
from nl3d.models.inflated import CLIP_CFG, InflatedReID
from nl3d.weights.build import build_framewise
from nl3d.weights.open import INFLATED_PREFIX, Checkpoint, open_own_weights, spec_cfg
from nl3d.weights.packaged import packaged_spec, read_packaged
from nl3d.weights.records import WEIGHTS


def inflated(
    name: str,
    weights: str | None = None,
    *,
    time_kernel: int = 3,
    **options: Any,
) -> Any:
    """Build an image network of timm and inflate it; it keeps the methods and the ``pretrained_cfg`` it had.

    Its ``processor`` (:class:`~nl3d.ClipProcessor`) turns frames into its clips.

    Args:
        name: timm's name of the network, as ``"convnext_tiny"``.
        weights: ``None`` for random ones; ``"imagenet"`` for timm's default ones, or another of timm's tags for this
            name; ``"imagenet-lite0"`` for ``"tf_efficientnet_lite0"``, from an installed package;
            ``"hf-hub:org/name[@revision]"``; or a safetensors file, of the image network or of the inflated one.
        time_kernel: As for :class:`~nl3d.Inflate2dTo3d`.
        options: Any other keyword of :class:`~nl3d.Inflate2dTo3d`, or any option of :func:`timm.create_model`, such as
            ``num_classes``, ``in_chans``, ``drop_path_rate`` or ``features_only=True``.

    Shape:
        - Input: ``(B, C, T, H, W)``
        - Output: as of :class:`~nl3d.Inflate2dTo3d`

    Raises:
        ValueError: If the weights are unknown, damaged or of another network.
        TypeError: If the network holds a layer that no rule covers.
        FileNotFoundError: If a file or repository does not exist.
        ConnectionError: If the Hub cannot be reached.

    Example:
        >>> model = nl3d.inflated("test_convnext", time_kernel=3, num_classes=5)
        >>> model(torch.rand(2, 3, 4, 64, 32)).shape
        torch.Size([2, 5])
    """
    inflation = {key: options.pop(key) for key in _INFLATION if key in options}
    inflate = Inflate2dTo3d(time_kernel, **{**inflation, "share": True})  # the image network is used here alone
    network, tensors = _image_network(name, weights, options)
    video = inflate(network)
    if tensors is not None:
        fill_model(video, tensors)
    if isinstance(cfg := getattr(video, "pretrained_cfg", None), dict):
        video.pretrained_cfg = {**CLIP_CFG, **cfg}
        video.processor = ClipProcessor.of(video)
    return video if weights is None else video.eval()


_INFLATION = inspect.signature(Inflate2dTo3d).parameters.keys()


def reid_model(
    name: str, weights: str | Checkpoint | None = None, *, num_classes: int = 0, **options: Any
) -> InflatedReID | FramewiseNet:
    """Build a re-identification network over clips from any image network of timm.

    A convolutional network is inflated. With ``aggregation=`` the image network sees one frame at a time, and its
    vectors are joined over time; so transformers can be used, such as ``"vit_base_patch16_clip_224"`` (CLIP ViT-B/16).

    Args:
        name: timm's name of the network.
        weights: As for :func:`inflated`, or a safetensors file, folder or repository of such a network with its head.
            Options that were saved with it stand where nothing is said here.
        num_classes: Identities to classify, 0 for no classifier.
        options: Arguments of :class:`~nl3d.models.inflated.InflatedReID`, such as ``embedding_dim``, ``dropout``,
            ``time_kernel`` or ``non_local={"stages.2": (2, 5)}``, or with ``aggregation`` (``"mean"``, ``"max"``,
            ``"rnn"`` or ``"attention"``) those of :class:`~nl3d.FramewiseNet`; and any option of
            :func:`timm.create_model`. A transformer of fixed image size gets ``img_size=(256, 128)`` if none is given.

    Shape:
        - Input: ``(B, 3, T, H, W)``, RGB normalised by ``model.pretrained_cfg["mean"]`` and ``["std"]``
        - Output: :class:`~nl3d.ReIDOutput`

    Raises:
        ValueError: As :func:`inflated`, or if ``non_local`` names what is not there.

    Example:
        >>> model = nl3d.reid_model("test_convnext", non_local={"stages.2": (0,)}, num_classes=625)
        >>> model(torch.rand(2, 3, 4, 64, 32)).logits.shape
        torch.Size([2, 625])
    """
    saved = open_own_weights(weights) if isinstance(weights, str) and Path(weights).exists() else weights
    if "aggregation" in options:
        return _framewise(name, saved or weights, num_classes, options)
    if isinstance(saved, Checkpoint) and packaged_spec(saved.source):
        weights = saved = saved.source
    known = set(InflatedReID.option_names()) - {"backbone", "num_classes", "backbone_options"}
    own: dict[str, Any] = {}
    if isinstance(saved, Checkpoint):
        if (architecture := saved.config.get("architecture")) != f"{INFLATED_PREFIX}{name}":
            raise ValueError(f"weights {saved.source!r} must be of {INFLATED_PREFIX}{name}, but are of {architecture}")
        own = {key: value for key, value in saved.config.items() if key in known}
        options = {**(saved.config.get("backbone_options") or {}), **options}
    own |= {key: value for key, value in options.items() if key in known}
    backbone_options = {key: value for key, value in options.items() if key not in known}
    model = InflatedReID(name, num_classes=num_classes, backbone_options=backbone_options or None, **own)
    if isinstance(saved, Checkpoint):
        _fill_inflated(model, saved.tensors)
        model.pretrained_cfg.update(saved.cfg)
    elif isinstance(weights, str):
        tensors = read_safetensors(Path(weights), copy=True) if Path(weights).is_file() else {}
        if any(key.startswith("backbone.") for key in tensors):
            _fill_inflated(model, tensors)
        else:
            inflation = {key: value for key, value in own.items() if key in _INFLATION}
            backbone = inflated(name, weights, num_classes=0, **inflation, **backbone_options)
            image = {f"backbone.{key}": tensor for key, tensor in backbone.state_dict().items()}
            fill_model(model, image, new=new_modules(model))
        if spec := packaged_spec(weights):
            model.pretrained_cfg.update(spec_cfg(spec))
    return model if weights is None else model.eval()


def _framewise(name: str, weights: str | Checkpoint | None, num_classes: int, options: dict[str, Any]) -> FramewiseNet:
    """Build a frame-wise network of any image network of timm."""
    known = set(FramewiseNet.option_names()) - {"backbone", "num_classes", "backbone_options"}
    own = {key: value for key, value in options.items() if key in known}
    backbone = {**(options.get("backbone_options") or {})}
    backbone |= {key: value for key, value in options.items() if key not in (*known, "backbone_options")}
    cfg = timm.get_pretrained_cfg(name)
    if cfg is not None and cfg.fixed_input_size:
        backbone.setdefault("img_size", (256, 128))  # pedestrians
    if isinstance(weights, Checkpoint):
        own["backbone_options"] = backbone or None
        return build_framewise("framewise", weights, num_classes, {**own, "backbone": name}).eval()
    model = FramewiseNet(name, num_classes=num_classes, backbone_options=backbone or None, **own)
    if weights is None:
        return model
    network, tensors = _image_network(name, weights, {"num_classes": 0, **backbone})
    if tensors is not None:
        raise ValueError(f"weights must be an image network's for aggregation={own['aggregation']!r}, got {weights!r}")
    image = {f"backbone.{key}": tensor for key, tensor in network.state_dict().items()}
    fill_model(model, image, new=new_modules(model))
    return model.eval()


def _fill_inflated(model: InflatedReID, tensors: Mapping[str, Tensor]) -> None:
    """Fill an inflated network from a file of its own kind; another number of classes leaves the classifier new."""
    tensors = without_other_classifier(tensors, model.num_classes)
    fill_model(model, tensors, new=[name for name in new_modules(model) if name.endswith(".classifier")])


def _image_network(
    name: str, weights: str | None, options: Mapping[str, Any]
) -> tuple[nn.Module, Mapping[str, Tensor] | None]:
    """Image network, filled if the weights are an image network's; else those of its inflated twin beside it."""
    if weights is None:
        return timm.create_model(name, **options), None
    tag: str | None = None
    source: dict[str, Any] = {}
    if (spec := packaged_spec(weights)) and spec.models == (f"{INFLATED_PREFIX}{name}",):
        source["state_dict"] = read_packaged(spec)
    else:
        tag, path = _find(name, weights)
        tensors = read_safetensors(path, copy=True)
        if any(tensor.ndim == 5 for tensor in tensors.values()):
            return timm.create_model(name, **options), tensors
        source["file"] = str(path)
    try:
        network = timm.create_model(
            f"{name}.{tag}" if tag else name,
            pretrained=True,
            pretrained_cfg_overlay={**source, "source": ""},
            **options,
        )
        network.pretrained_cfg.pop("state_dict", None)
    except RuntimeError as error:
        raise ValueError(f"weights must fit {name}, got {weights!r}: {' '.join(str(error).split())[:300]}") from None
    return network, None


def _find(name: str, weights: str) -> tuple[str | None, Path]:
    """Tag, if timm knows the weights by one, and path of the file, fetched if need be."""
    if match := re.fullmatch(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", weights):
        return None, fetch(match[1], "model.safetensors", revision=match[2])
    if Path(weights).suffix == ".safetensors":
        return None, Path(weights)
    tags = [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]
    tags += [spec.name for spec in WEIGHTS if spec.package and f"{INFLATED_PREFIX}{name}" in spec.models]
    if weights not in ("imagenet", *tags) or not tags:
        choices = ", ".join(("imagenet", *tags)) if tags else "a safetensors file"
        raise ValueError(f"unknown weights {weights!r} for {name}; choose from: {choices}")
    cfg = timm.get_pretrained_cfg(name if weights == "imagenet" else f"{name}.{weights}")
    filename = cfg.hf_hub_filename or "model.safetensors"
    if not cfg.hf_hub_id or not filename.endswith(".safetensors"):
        raise ValueError(f"weights {weights!r} of {name} are not on the Hub as safetensors; pass a file of your own")
    return cfg.tag, fetch(cfg.hf_hub_id, filename)
