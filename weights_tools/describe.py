"""Identify a checkpoint file on the meta device, without memory for its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nl3d.convert.architecture import fold_into_norms
from nl3d.convert.checkpoint import from_checkpoint
from nl3d.convert.families.table import find_family
from nl3d.convert.family import rename_keys
from nl3d.convert.read import ForeignCheckpoint, read_checkpoint
from nl3d.layers.non_local import NonLocalBlock3d
from nl3d.models.resnet3d import STAGES


def count_classes(checkpoint: ForeignCheckpoint, family: str | None = None) -> int:
    """Number of classes of a file's classifier, 0 without one."""
    found, checkpoint = find_family(checkpoint, family)
    tensors = fold_into_norms(rename_keys(found.prepare(checkpoint.tensors)[0], found))
    classifier = tensors.get("head.classifier.weight")
    return 0 if classifier is None else len(classifier)


def describe(path: str | Path, *, family: str | None = None) -> dict[str, Any]:
    """Tell a file's family and network. Every key is accounted for, on the meta device.

    Args:
        path: The file.
        family: As for :func:`nl3d.from_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    classes = count_classes(checkpoint, family)
    shapes = {key: tensor.to("meta") for key, tensor in checkpoint.tensors.items()}
    model = from_checkpoint({"state_dict": shapes, **checkpoint.extras}, family=family, num_classes=classes)
    non_local = {name: part for name, part in model.named_modules() if isinstance(part, NonLocalBlock3d)}
    first = next(iter(non_local.values()), None)
    config = model.hub_config()
    return {
        "file": str(path),
        "family": model.pretrained_cfg["family"],
        "architecture": config["architecture"],
        "block": config["block"],
        "block_counts": list(config["block_counts"]),
        "layout": config["layout"],
        "stem": {"kernel": list(model.conv1.kernel_size), "stride": list(model.conv1.stride)},
        "time_kernel": config["time_kernel"],
        "stages": dict(zip(STAGES, [info["num_chs"] for info in model.feature_info[1:]], strict=True)),
        "non_local": list(non_local),
        "non_local_mode": first.mode if first else None,
        "head": config["head"],
        "num_classes": classes,
        "embedding_dim": model.embedding_dim,
        "dtype": checkpoint.dtype,
        "tensors": len(checkpoint.tensors),
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "mean": list(model.pretrained_cfg["mean"]),
        "std": list(model.pretrained_cfg["std"]),
        "num_frames": model.pretrained_cfg["num_frames"],
        "frame_step": model.pretrained_cfg["frame_step"],
    }
