"""A network's outputs, stage by stage, against those that the original code gave."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from nl3d.convert.checkpoint import from_checkpoint
from nl3d.convert.read import read_checkpoint
from nl3d.models.resnet3d import STAGES, ResNet3d
from weights_tools.describe import count_classes


class Agreement(NamedTuple):
    """How far one output is from the original's: the largest difference over the largest value."""

    output: str
    error: float


def stage_outputs(model: ResNet3d, clips: Tensor) -> dict[str, Tensor]:
    """Everything that a parity file may hold of a network: after the stem and each stage, pooled, embedding, logits.

    Args:
        model: The network, in evaluation mode.
        clips: ``(B, C, T, H, W)``.
    """
    outputs: dict[str, Tensor] = {}
    names = {"maxpool": "stem", **{stage: stage for stage in STAGES}, "layer1_pool": "layer1_pooled"}
    handles = [
        part.register_forward_hook(lambda _, __, output, name=names[child]: outputs.__setitem__(name, output.clone()))
        for child, part in model.named_children()
        if child in names
    ]
    try:
        with torch.inference_mode():
            features, embedding, logits = model(clips)
    finally:
        for handle in handles:
            handle.remove()
    outputs |= {"features": outputs["layer4"], "pooled": features, "embedding": embedding}
    outputs["frame_features"] = outputs["layer4"].amax((3, 4)).transpose(1, 2)
    if logits is not None:
        outputs |= {"logits": logits, "probs": logits.softmax(1)}
    return outputs


def verify(path: str | Path, against: str | Path, *, family: str | None = None) -> list[Agreement]:
    """Run a checkpoint on a parity file's input and compare every output that the file holds.

    Args:
        path: The checkpoint, foreign or converted.
        against: Parity file: safetensors with ``input`` and ``out/<name>``.
        family: As for :func:`nl3d.from_checkpoint`.
    """
    if not Path(against).is_file():
        raise FileNotFoundError(f"parity file {str(against)!r} does not exist")
    parity = load_file(against)
    wanted = {key.removeprefix("out/"): tensor for key, tensor in parity.items() if key.startswith("out/")}
    if "input" not in parity or not wanted:
        raise ValueError(f"parity file {str(against)!r} must hold 'input' and 'out/...', got {sorted(parity)[:4]}")
    checkpoint = read_checkpoint(path)
    model = from_checkpoint(path, family=family, num_classes=count_classes(checkpoint, family))
    clips = parity["input"]
    image = clips.ndim == 4
    outputs = stage_outputs(model, clips.unsqueeze(2) if image else clips)
    rows = []
    for name, tensor in wanted.items():
        if name not in outputs:
            raise ValueError(f"parity file must hold outputs among {', '.join(outputs)}, got {name!r}")
        got = outputs[name].squeeze(2) if image and outputs[name].ndim == 5 else outputs[name]
        if got.shape != tensor.shape:
            raise ValueError(
                f"output {name!r} must be {tuple(tensor.shape)}, as the original's, got {tuple(got.shape)}"
            )
        rows.append(Agreement(name, ((got - tensor).abs().max() / tensor.abs().max()).item()))
    return rows
