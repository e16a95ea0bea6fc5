"""Any convolutional image network of timm as a video network, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nl3d.hub.fetch import fetch
from nl3d.hub.fill import fill_model, new_modules, read_safetensors
from nl3d.inflate import Inflate2dTo3d, place_non_local
from nl3d.inflate.kernels import KernelInit
from nl3d.layers.head import ReIDHead
from nl3d.layers.non_local import NonLocalMode, Subsample
from nl3d.layers.time_padding import TimePadding
from nl3d.models.reid_network import ReIDNetwork

if TYPE_CHECKING:
    from nl3d.inflate.convert import Where

CLIP_CFG: Mapping[str, int] = {"num_frames": 8, "frame_step": 1}
"""What an image network's record does not say of clips: the paper's 8 frames (Sec. 4.2), one after the other."""


def inflated(
    name: str,
    weights: str | None = None,
    *,
    time_kernel: int = 3,
    init: KernelInit = "average",
    separable: bool = False,
    time_padding: TimePadding = "zeros",
    time_stride: Mapping[str, int] | None = None,
    where: Where | None = None,
    **options: Any,
) -> Any:
    """Build an image network of timm and inflate it; it keeps the methods and the ``pretrained_cfg`` it had.

    Args:
        name: timm's name of the network, as ``"convnext_tiny"``.
        weights: ``None`` for random ones; ``"imagenet"`` for timm's default ones, or another of timm's tags for this
            name; ``"hf-hub:org/name[@revision]"``; or a safetensors file, of the image network or of the inflated one.
        time_kernel: As for :class:`~nl3d.Inflate2dTo3d`, and so are the next five.
        init: See there.
        separable: See there.
        time_padding: See there.
        time_stride: See there.
        where: See there.
        options: Any option of :func:`timm.create_model`, such as ``num_classes``, ``in_chans``, ``drop_path_rate`` or
            ``features_only=True``.

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
    inflate = Inflate2dTo3d(
        time_kernel,
        init=init,
        separable=separable,
        time_padding=time_padding,
        time_stride=time_stride or 1,
        where=where,
        share=True,  # nobody else has the image network
    )
    network, tensors = _image_network(name, weights, options)
    video = inflate(network)
    if tensors is not None:
        fill_model(video, tensors)
    if isinstance(cfg := getattr(video, "pretrained_cfg", None), dict):
        video.pretrained_cfg = {**CLIP_CFG, **cfg}
    return video


class InflatedReID(ReIDNetwork):
    """An inflated network as a re-identification network: its last feature map goes into a :class:`~nl3d.ReIDHead`.

    Args:
        backbone: What :class:`~nl3d.Inflate2dTo3d` gave, with a ``forward_features`` that gives a map.
        embedding_dim: Width of the bottleneck.
        num_classes: Identities to classify, 0 for no classifier.
        dropout: Share of the embedding that is dropped before the classifier, in training.

    Shape:
        - Input: ``(B, C, T, H, W)``
        - Output: :class:`~nl3d.ReIDOutput`

    Raises:
        ValueError: If the backbone's last features are no map.
    """

    def __init__(self, backbone: Any, embedding_dim: int = 512, *, num_classes: int = 0, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone
        self.in_channels: int = backbone.in_channels_of_clips or 3
        self.new_tensors: tuple[str, ...] | None = None  # what no checkpoint filled, if one filled anything
        self.pretrained_cfg = {**CLIP_CFG, **backbone.pretrained_cfg}
        if not self.pretrained_cfg.get("fixed_input_size"):
            self.pretrained_cfg["input_size"] = (self.pretrained_cfg["input_size"][0], 256, 128)  # pedestrians
        self.num_features = _width(backbone)
        self.head = ReIDHead(self.num_features, embedding_dim, num_classes=num_classes, dropout=dropout)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Feature map ``(B, num_features, T', H', W')`` of clips ``(B, C, T, H, W)``."""
        return self.backbone.forward_features(clips)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, where the image network can."""
        self.backbone.set_grad_checkpointing(enable)


def reid_model(
    name: str,
    weights: str | None = None,
    *,
    num_classes: int = 0,
    embedding_dim: int = 512,
    dropout: float = 0.5,
    non_local: Mapping[str, Sequence[int]] | None = None,
    non_local_mode: NonLocalMode = "embedded_gaussian",
    non_local_scale: bool = False,
    non_local_subsample: Subsample | None = None,
    time_kernel: int = 3,
    init: KernelInit = "average",
    separable: bool = False,
    time_padding: TimePadding = "zeros",
    time_stride: Mapping[str, int] | None = None,
    where: Where | None = None,
    **options: Any,
) -> InflatedReID:
    """Build a re-identification network over clips from any convolutional image network of timm.

    Args:
        name: timm's name of the network.
        weights: As for :func:`inflated`, or a safetensors file of such a network with its head.
        num_classes: Identities to classify, 0 for no classifier.
        embedding_dim: Width of the bottleneck.
        dropout: Share of the embedding that is dropped before the classifier, in training.
        non_local: Stage to zero-based indices of the blocks that get a non-local block, as ``{"stages.2": (2, 5)}``.
        non_local_mode: As ``mode`` of :class:`~nl3d.NonLocalBlock3d`.
        non_local_scale: As its ``scale``.
        non_local_subsample: As its ``subsample``.
        time_kernel: As for :class:`~nl3d.Inflate2dTo3d`, and so are the next five.
        init: See there.
        separable: See there.
        time_padding: See there.
        time_stride: See there.
        where: See there.
        options: Any option of :func:`timm.create_model`.

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
    whole = None
    if weights is not None and Path(weights).is_file():
        tensors = read_safetensors(Path(weights), copy=True)
        if any(key.startswith("backbone.") for key in tensors):
            whole, weights = tensors, None
    backbone = inflated(
        name,
        weights,
        time_kernel=time_kernel,
        init=init,
        separable=separable,
        time_padding=time_padding,
        time_stride=time_stride,
        where=where,
        num_classes=0,
        **options,
    )
    if non_local:
        place_non_local(backbone, non_local, mode=non_local_mode, scale=non_local_scale, subsample=non_local_subsample)
    model = InflatedReID(backbone, embedding_dim, num_classes=num_classes, dropout=dropout)
    if whole is not None:
        classifier = whole.get("head.classifier.weight")
        if classifier is not None and len(classifier) != num_classes:
            whole = {key: tensor for key, tensor in whole.items() if not key.startswith("head.classifier.")}
        fill_model(model, whole, new=[name for name in new_modules(model) if name.endswith(".classifier")])
    elif weights is not None:
        fresh = re.compile(r"head\.|.*\.non_local\.")
        model.new_tensors = tuple(key for key in model.state_dict() if fresh.match(key))
    return model


def _image_network(
    name: str, weights: str | None, options: Mapping[str, Any]
) -> tuple[nn.Module, Mapping[str, Tensor] | None]:
    """Image network, filled if the weights are an image network's; else those of its inflated twin beside it."""
    import timm

    if weights is None:
        return timm.create_model(name, **options), None
    tag, path = _find(name, weights)
    tensors = read_safetensors(path, copy=True)
    if any(tensor.ndim == 5 for tensor in tensors.values()):
        return timm.create_model(name, **options), tensors
    try:
        network = timm.create_model(
            f"{name}.{tag}" if tag else name,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(path), "source": ""},
            **options,
        )
    except RuntimeError as error:
        raise ValueError(f"weights must fit {name}, got {weights!r}: {' '.join(str(error).split())[:300]}") from None
    return network, None


def _find(name: str, weights: str) -> tuple[str | None, Path]:
    """Tag, if timm knows the weights by one, and path of the file, fetched if need be."""
    import timm

    if match := re.fullmatch(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", weights):
        return None, fetch(match[1], "model.safetensors", revision=match[2])
    if Path(weights).suffix == ".safetensors":
        return None, Path(weights)
    tags = [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]
    if weights not in ("imagenet", *tags) or not tags:
        choices = ", ".join(("imagenet", *tags)) if tags else "a safetensors file"
        raise ValueError(f"unknown weights {weights!r} for {name}; choose from: {choices}")
    cfg = timm.get_pretrained_cfg(name if weights == "imagenet" else f"{name}.{weights}")
    filename = cfg.hf_hub_filename or "model.safetensors"
    if not cfg.hf_hub_id or not filename.endswith(".safetensors"):
        raise ValueError(f"weights {weights!r} of {name} are not on the Hub as safetensors; pass a file of your own")
    return cfg.tag, fetch(cfg.hf_hub_id, filename)


def _width(backbone: Any) -> int:
    """Channels of the last feature map, from one black frame."""
    channels, height, width = backbone.pretrained_cfg["input_size"]
    clip = next(backbone.parameters()).new_zeros(1, backbone.in_channels_of_clips or channels, 1, height, width)
    training = {module: module.training for module in backbone.modules()}
    with torch.no_grad():
        features = backbone.eval().forward_features(clip)
    for module, was in training.items():
        module.training = was
    if not isinstance(features, Tensor) or features.ndim != 5:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"backbone must give a map (B, C, T, H, W) as its last features, got {shape}")
    return int(features.shape[1])
