"""An inflated image network with a re-identification head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import timm
import torch
from torch import Tensor

from nl3d.hub.pretrained import PretrainedMixin
from nl3d.inflate import Inflate2dTo3d, place_non_local
from nl3d.inflate.kernels import KernelInit
from nl3d.layers.head import ReIDHead
from nl3d.layers.non_local import NonLocalMode, Subsample
from nl3d.layers.time_padding import TimePadding
from nl3d.models.reid_network import ReIDNetwork

if TYPE_CHECKING:
    from nl3d.inflate.convert import Where

CLIP_CFG: Mapping[str, int] = {"num_frames": 8, "frame_step": 1}
"""Clips of an inflated network, which image networks do not describe: the paper's 8 frames (Sec. 4.2), in a row."""


class InflatedReID(ReIDNetwork, PretrainedMixin):
    """A convolutional image network of timm, inflated; its last feature map goes into a :class:`~nl3d.ReIDHead`.

    The weights are random: :func:`nl3d.reid_model` fills them, and :func:`nl3d.from_pretrained` loads a saved network.

    Args:
        backbone: timm's name of the image network.
        embedding_dim: Width of the bottleneck.
        num_classes: Identities to classify, 0 for no classifier.
        dropout: Share of the embedding that is dropped before the classifier, in training.
        non_local: Indices of the blocks, from zero, that get a non-local block, by stage, as ``{"stages.2": (2, 5)}``.
        non_local_mode: As ``mode`` of :class:`~nl3d.NonLocalBlock3d`.
        non_local_scale: As its ``scale``.
        non_local_subsample: As its ``subsample``.
        time_kernel: As for :class:`~nl3d.Inflate2dTo3d`, and so are all up to ``where``. A network with a function as
            ``where`` cannot be saved.
        backbone_options: Options of :func:`timm.create_model`.

    Shape:
        - Input: ``(B, C, T, H, W)``
        - Output: :class:`~nl3d.ReIDOutput`

    Raises:
        ValueError: If the backbone's last features are no map, or ``non_local`` names what is not there.
        TypeError: If the image network holds a layer that no rule covers.
    """

    _builds_on_meta = False  # timm's networks hold buffers that no file has

    def __init__(
        self,
        backbone: str,
        *,
        embedding_dim: int = 512,
        num_classes: int = 0,
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
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        inflate = Inflate2dTo3d(
            time_kernel,
            init=init,
            separable=separable,
            time_padding=time_padding,
            time_stride=time_stride or 1,
            where=where,
            share=True,  # the image network is used here alone
        )
        network: Any = inflate(timm.create_model(backbone, num_classes=0, **(backbone_options or {})))
        if non_local:
            place_non_local(
                network, non_local, mode=non_local_mode, scale=non_local_scale, subsample=non_local_subsample
            )
        self.backbone = network
        self.backbone_name = backbone
        self.in_channels: int = network.in_channels_of_clips or 3
        self.new_tensors: tuple[str, ...] | None = None  # names of tensors that no checkpoint filled
        self.pretrained_cfg: dict[str, Any] = {**CLIP_CFG, **network.pretrained_cfg}
        if not self.pretrained_cfg.get("fixed_input_size"):
            self.pretrained_cfg["input_size"] = (self.pretrained_cfg["input_size"][0], 256, 128)  # pedestrians
        self.num_features = _width(network)
        self.head = ReIDHead(self.num_features, embedding_dim, num_classes=num_classes, dropout=dropout)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Feature map ``(B, num_features, T', H', W')`` of clips ``(B, C, T, H, W)``."""
        return self.backbone.forward_features(clips)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, where the image network can."""
        self.backbone.set_grad_checkpointing(enable)

    def architecture(self) -> tuple[str, tuple[str, ...]]:
        """``inflated:`` and timm's name, and the argument that this name implies."""
        return f"inflated:{self.backbone_name}", ("backbone",)


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
