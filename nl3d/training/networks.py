"""The network of a run: its architecture, the weights it starts from, and its clips."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import timm
from einops import rearrange
from torch import Tensor, nn

from nl3d.hub.fill import fill_model, new_modules
from nl3d.inflate.state_dict import inflate_state_dict
from nl3d.models.framewise import FramewiseNet
from nl3d.models.inflated import InflatedReID
from nl3d.models.resnet3d import ResNet3d
from nl3d.training.checkpoint import read_checkpoint
from nl3d.training.config import TrainingConfig, read_config
from nl3d.weights import factories
from nl3d.weights.inflated import reid_model
from nl3d.weights.open import open_own_weights
from nl3d.weights.records import FACTORIES

SMALL = ("small_tp", "small_rnn", "small_ta", "small_3d", "small_3d_nl")
SMALL_WIDTH = 32
INFLATED = "inflated:"
BEST = "best.safetensors"
ARCHITECTURE = ("last_stride", "head", "embedding_dim", "dropout")


def build_network(config: TrainingConfig, num_classes: int) -> nn.Module:
    """Build the network of a configuration, filled with the weights it starts from.

    The small networks are ResNet-18 of half the width: ``small_3d`` and ``small_3d_nl`` as :func:`nl3d.resnet3d18` and
    :func:`nl3d.resnet3d18_nl`; ``small_tp``, ``small_rnn`` and ``small_ta`` the same trunk without a kernel in time,
    on every frame, then the mean, an LSTM or attention over the frames. So the rows of a small table differ in nothing
    but what they are named after. ``inflated:NAME`` is :func:`nl3d.reid_model` of timm's network ``NAME``;
    with ``model_args={"aggregation": "mean"}`` it is not inflated, but sees one frame at a time.
    """
    run = Path(config.weights)
    starts_from_run = (run / BEST).is_file()
    weights = None if config.weights == "none" or starts_from_run else config.weights
    try:
        model = _new_network(config, weights, num_classes)
    except TypeError as error:
        if not config.model_args:
            raise
        raise ValueError(f"model_args must be arguments of {config.model}, got {config.model_args} ({error})") from None
    if starts_from_run:
        _start_from(model, run)
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


def starting_options(weights: str) -> dict[str, Any]:
    """Return the options that weights bring along: their network and its clips; none for weights without a config.

    Example:
        >>> found = starting_options("bundled")
        >>> found["model"], found["num_frames"], (found["height"], found["width"])
        ('resnet3d18_nl', 4, (96, 48))
    """
    run = Path(weights)
    if (run / BEST).is_file():
        config = dataclasses.asdict(read_config(run / "config.json"))
        names = ("model", "model_args", *ARCHITECTURE, "num_frames", "frame_step", "height", "width")
        return {name: config[name] for name in names}
    opened = open_own_weights(weights)
    if opened is None:
        return {}
    args = dict(opened.config.get("model_args", {}))
    options: dict[str, Any] = {name: args.pop(name) for name in ARCHITECTURE if name in args}
    clips = {name: opened.cfg[name] for name in ("num_frames", "frame_step") if name in opened.cfg}
    if "input_size" in opened.cfg:
        clips |= dict(zip(("height", "width"), opened.cfg["input_size"][1:], strict=True))
    model = opened.config["architecture"]
    if model == "framewise":
        model = f"{INFLATED}{args.pop('backbone')}"
    return {"model": model, "model_args": args, **options, **clips}


def describe_network(network: nn.Module) -> dict[str, Any]:
    """Return what a checkpoint stores of its network: its clips and, where it is plain data, how it is built."""
    config: Any = network.pretrained_cfg
    clips = {name: config[name] for name in ("mean", "std", "num_frames", "frame_step", "input_size")}
    try:
        found: Any = network.hub_config()  # type: ignore[operator]
    except (AttributeError, ValueError):  # no plain data; the configuration of the run rebuilds the network
        return {"clips": clips}
    names: Any = network.option_names()  # type: ignore[operator]
    options = {name: value for name, value in found.items() if name in names}
    return {"clips": clips, "kind": type(network).__name__, "options": options}


def rebuild_network(described: dict[str, Any], config: TrainingConfig, num_classes: int) -> nn.Module:
    """Build the network that :func:`describe_network` described, with random weights."""
    kinds: dict[str, Any] = {"ResNet3d": ResNet3d, "FramewiseNet": FramewiseNet, "InflatedReID": InflatedReID}
    if described.get("kind") in kinds:
        model = kinds[described["kind"]](**{**described["options"], "num_classes": num_classes})
    else:
        model = _new_network(config, None, num_classes)
    model.pretrained_cfg |= described["clips"]
    return model


def _new_network(config: TrainingConfig, weights: str | None, num_classes: int) -> Any:
    """Build a network before it is filled from a run."""
    name, args = config.model, config.model_args
    if name in SMALL:
        return _small(config, weights, num_classes)
    if name in FACTORIES and name.startswith("resnet3d"):
        return getattr(factories, name)(weights, num_classes=num_classes, **{**_options_3d(config), **args})
    if name not in FACTORIES and not name.startswith(INFLATED):
        choices = ", ".join((*SMALL, *FACTORIES, f"{INFLATED}NAME"))
        raise ValueError(f"model must be one of {choices}, got {name!r}")
    if config.last_stride != 2 or config.head != "bottleneck":
        raise ValueError(f"last_stride must be 2 and head 'bottleneck' for {name}, since its trunk is timm's")
    options = {"embedding_dim": config.embedding_dim, "dropout": config.dropout, **args}
    if name in FACTORIES:
        return getattr(factories, name)(weights, num_classes=num_classes, **options)
    image = name.removeprefix(INFLATED)
    if not timm.is_model(image):
        raise ValueError(f"model must name a network of timm after {INFLATED!r}, got {image!r}; see timm.list_models()")
    return reid_model(image, weights, num_classes=num_classes, **options)


def _options_3d(config: TrainingConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ARCHITECTURE}


def _small(config: TrainingConfig, weights: str | None, num_classes: int) -> Any:
    if weights is not None:
        raise ValueError(f"weights must be 'none' or a run for {config.model}, none are published, got {weights!r}")
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
        """Return the feature maps of images."""
        maps = self.network.forward_features(rearrange(images, "b c h w -> b c 1 h w"))
        return rearrange(maps, "b c 1 h w -> b c h w")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, as the network within does."""
        self.network.set_grad_checkpointing(enable)


def _start_from(model: nn.Module, run: Path) -> None:
    """Fill a network with a run's best weights, and leave the classifier new."""
    tensors, _ = read_checkpoint(run / BEST)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.classifier.")}
    fill_model(model, kept, new=[name for name in new_modules(model) if name.endswith(".classifier")])


def _inflate_from(model: nn.Module, run: Path) -> None:
    """Fill a 3D network with a run's image network, inflated (Sec. 3.1); non-local blocks stay new."""
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
