"""Non-local blocks in an inflated network, placed by module name (Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nl3d.inflate.clips import OnFrames, TakesClips, ThenClips, behave
from nl3d.layers.non_local import NonLocalBlock3d, NonLocalMode, Subsample


def place_non_local(
    network: nn.Module,
    placement: Mapping[str, Sequence[int]],
    *,
    mode: NonLocalMode = "embedded_gaussian",
    scale: bool = False,
    subsample: Subsample | None = None,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Put fresh non-local blocks behind blocks of an inflated network, in place, with no effect at the start.

    The block at index i of a stage gets a child ``non_local``; no other name in the network changes. Widths come from
    one forward pass over a black frame.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.2, Fig. 5.

    Args:
        network: What :class:`~nl3d.Inflate2dTo3d` gave.
        placement: Zero-based indices of blocks by stage, as ``{"layer2": (1, 3)}`` or ``{"stages.2": (2, 5)}``. A
            stage's blocks are the children of its child ``blocks``, or else its own.
        mode: As for :class:`~nl3d.NonLocalBlock3d`.
        scale: As for :class:`~nl3d.NonLocalBlock3d`.
        subsample: As for :class:`~nl3d.NonLocalBlock3d`.
        image_size: Height and width of the black frame, in pixels; what timm recorded, or 224x224, if left out.

    Raises:
        TypeError: If ``network`` is not inflated.
        ValueError: If a stage or block is not there, or a block gives something else than one map.

    Example:
        >>> from nl3d import Inflate2dTo3d
        >>> stage = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3))
        >>> video_network = Inflate2dTo3d()(torch.nn.Sequential(stage))
        >>> place_non_local(video_network, {"0": (1,)})
        >>> video_network[0][1].non_local.in_channels
        8
    """
    if not isinstance(network, TakesClips):
        raise TypeError(f"network must come from Inflate2dTo3d, got {type(network).__name__}")
    blocks = {
        f"{stage}[{index}]": _block(network, stage, index) for stage, indices in placement.items() for index in indices
    }
    shapes = _output_shapes(network, blocks, image_size)
    channels_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
    like = next(network.parameters())
    for name, block in blocks.items():
        shape = shapes.get(name)
        if shape is None or len(shape) != 4:
            raise ValueError(f"non_local must name blocks that give one map, but {name} gives {shape}")
        block_channels = shape[-1] if channels_last else shape[1]
        non_local = NonLocalBlock3d(block_channels, mode=mode, scale=scale, subsample=subsample)
        behave(non_local.to(like).train(block.training), OnFrames, clip_shape=network.clip_shape)
        behave(block, ThenClips, non_local=non_local, channels_last=channels_last)


def _block(network: nn.Module, stage: str, index: int) -> nn.Module:
    try:
        module = network.get_submodule(stage)
    except AttributeError:
        choices = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"non_local must name stages of the network, got {stage!r}; choose from: {choices}") from None
    blocks = list(getattr(module, "blocks", module).children())
    if not 0 <= index < len(blocks):
        raise ValueError(f"non_local must index the {len(blocks)} blocks of {stage!r} from 0, got {index}")
    if isinstance(blocks[index], ThenClips):
        raise ValueError(f"non_local must name blocks without a non-local block, but {stage}[{index}] has one")
    return blocks[index]


def _output_shapes(
    network: Any, blocks: Mapping[str, nn.Module], image_size: tuple[int, int] | None
) -> dict[str, tuple[int, ...] | None]:
    """Shape of what each block gives for one black frame."""
    shapes: dict[str, tuple[int, ...] | None] = {}

    def noting(name: str) -> Any:
        return lambda _, __, output: shapes.update({name: tuple(output.shape) if isinstance(output, Tensor) else None})

    recorded = (getattr(network, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    size = image_size or recorded[-2:]
    clip = next(network.parameters()).new_zeros(1, network.in_channels_of_clips or recorded[0], 1, *size)
    training = {module: module.training for module in network.modules()}
    hooks = [block.register_forward_hook(noting(name)) for name, block in blocks.items()]
    try:
        network.eval()
        with torch.no_grad():
            network(clip)
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in training.items():
            module.training = was
    return shapes
