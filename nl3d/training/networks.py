"""The network of a run: which one, what it starts from, and how its clips are prepared."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from einops import rearrange
from torch import Tensor, nn

from nl3d.hub.fill import fill_model, new_modules
from nl3d.inflate.state_dict import inflate_state_dict
from nl3d.models.framewise import FramewiseNet
from nl3d.models.resnet3d import ResNet3d
from nl3d.training.checkpoint import read_checkpoint
from nl3d.training.config import TrainingConfig, read_config
from nl3d.weights import factories
from nl3d.weights.records import FACTORIES

SMALL = ("small_tp", "small_rnn", "small_ta", "small_3d", "small_3d_nl")
SMALL_WIDTH = 32
BEST = "best.safetensors"


def build_network(config: TrainingConfig, num_classes: int) -> nn.Module:
    """Build the network that a configuration names, with the weights it starts from.

    The small networks are ResNet-18 of half the width: ``small_3d`` and ``small_3d_nl`` the zoo's 3D ones, and
    ``small_tp``, ``small_rnn`` and ``small_ta`` the same trunk without a kernel in time, on every frame, and the mean,
    an LSTM or attention over the frames. So the rows of a small table differ in nothing but what they are named after.

    Raises:
        ValueError: If the network is unknown, or an option does not fit it.
        FileNotFoundError: If the run to start from does not exist.
    """
    if config.model in SMALL:
        model = _small(config, num_classes)
    elif config.model in FACTORIES:
        options: dict[str, Any] = {"embedding_dim": config.embedding_dim, "dropout": config.dropout}
        if config.model.startswith("resnet3d"):
            options |= _options_3d(config)
        elif config.last_stride != 2 or config.head != "bottleneck":
            raise ValueError(f"last_stride must be 2 and head 'bottleneck' for {config.model}, whose trunk is timm's")
        weights = None if config.weights == "none" else config.weights
        options |= config.model_args
        model = getattr(factories, config.model)(weights, num_classes=num_classes, **options)
    else:
        raise ValueError(f"model must be one of {', '.join((*SMALL, *FACTORIES))}, got {config.model!r}")
    if config.init_from:
        _start_from(model, Path(config.init_from))
    if config.inflate_from:
        _inflate_from(model, Path(config.inflate_from))
    if config.grad_checkpointing:
        model.set_grad_checkpointing()
    model.pretrained_cfg |= {
        "num_frames": config.num_frames,
        "frame_step": config.frame_step,
        "input_size": (3, config.height, config.width),
    }
    return model


def describe_network(network: nn.Module) -> dict[str, Any]:
    """What a run notes of its network: how its clips are prepared and, where it is plain data, how it is built."""
    config: Any = network.pretrained_cfg
    clips = {name: config[name] for name in ("mean", "std", "num_frames", "frame_step", "input_size")}
    try:
        found: Any = network.hub_config()  # type: ignore[operator]
    except (AttributeError, ValueError):  # an adapter within, which the configuration of the run rebuilds
        return {"clips": clips}
    known = inspect.signature(type(network).__init__).parameters
    options = {name: value for name, value in found.items() if name in known}
    return {"clips": clips, "kind": type(network).__name__, "options": options}


def rebuild_network(described: dict[str, Any], config: TrainingConfig, num_classes: int) -> nn.Module:
    """Build what :func:`describe_network` described, with the weights that any network starts with."""
    kinds: dict[str, Any] = {"ResNet3d": ResNet3d, "FramewiseNet": FramewiseNet}
    if "kind" in described:
        model = kinds[described["kind"]](**{**described["options"], "num_classes": num_classes})
    else:
        plain = replace(config, weights="none", init_from=None, inflate_from=None, grad_checkpointing=False)
        model = build_network(plain, num_classes)
    model.pretrained_cfg |= described["clips"]
    return model


def _options_3d(config: TrainingConfig) -> dict[str, Any]:
    return {
        "last_stride": config.last_stride,
        "head": config.head,
        "embedding_dim": config.embedding_dim,
        "dropout": config.dropout,
    }


def _small(config: TrainingConfig, num_classes: int) -> Any:
    if config.weights != "none":
        raise ValueError(
            f"weights must be 'none' for {config.model}, of which none are published, got {config.weights!r}"
        )
    width = {"base_width": SMALL_WIDTH}
    if config.model in ("small_3d", "small_3d_nl"):
        factory = factories.resnet3d18_nl if config.model == "small_3d_nl" else factories.resnet3d18
        return factory(num_classes=num_classes, **{**width, **_options_3d(config), **config.model_args})
    still: dict[str, Any] = {"block": "basic", "block_counts": (2, 2, 2, 2), "layout": "full", "time_kernel": 1}
    if config.model == "small_tp":  # without a kernel in time, the 3D network's pool is the mean over the frames
        return ResNet3d(num_classes=num_classes, **{**width, **still, **_options_3d(config), **config.model_args})
    if config.head != "bottleneck":
        raise ValueError(f"head must be 'bottleneck' for {config.model}, got {config.head!r}")
    aggregation: Literal["rnn", "attention"] = "rnn" if config.model == "small_rnn" else "attention"
    trunk = FrameTrunk(ResNet3d(**{**width, **still, "last_stride": config.last_stride, **config.model_args}))
    return FramewiseNet(
        trunk,
        aggregation=aggregation,
        rnn_channels=trunk.num_features,
        embedding_dim=config.embedding_dim,
        num_classes=num_classes,
        dropout=config.dropout,
    )


class FrameTrunk(nn.Module):
    """A 3D ResNet without kernels in time as an image network, for :class:`~nl3d.models.framewise.FramewiseNet`.

    Args:
        network: The 3D ResNet; its head is dropped.

    Shape:
        - Input: ``(B, C, H, W)``
        - Output of ``forward_features``: ``(B, num_features, H', W')``
    """

    def __init__(self, network: ResNet3d) -> None:
        super().__init__()
        network.head = nn.Identity()  # type: ignore[assignment]
        self.network = network
        self.num_features = network.num_features

    def forward_features(self, images: Tensor) -> Tensor:
        """Feature maps of images."""
        maps = self.network.forward_features(rearrange(images, "b c h w -> b c 1 h w"))
        return rearrange(maps, "b c 1 h w -> b c h w")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As that of the network within."""
        self.network.set_grad_checkpointing(enable)


def _start_from(model: nn.Module, run: Path) -> None:
    """Fill a network with a run's best weights, and leave the classifier new."""
    tensors, _ = read_checkpoint(run / BEST)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.classifier.")}
    fill_model(model, kept, new=[name for name in new_modules(model) if name.endswith(".classifier")])


def _inflate_from(model: nn.Module, run: Path) -> None:
    """Fill a 3D network with a run's image network, spread over time (Sec. 3.1); non-local blocks stay new."""
    source = read_config(run / "config.json").model
    if source != "small_tp" or not isinstance(model, ResNet3d):
        raise ValueError(f"inflate_from must be a run of small_tp, for a 3D network, got one of {source}")
    tensors, _ = read_checkpoint(run / BEST)
    images = {
        name: tensor.squeeze(2) if tensor.ndim == 5 else tensor
        for name, tensor in tensors.items()
        if not name.startswith("head.classifier.")
    }
    new = [name for name in new_modules(model) if "non_local" in name or name.endswith(".classifier")]
    fill_model(model, inflate_state_dict(images, model), new=new)
