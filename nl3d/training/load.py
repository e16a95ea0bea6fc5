"""A run's weights as a network for everything else of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from nl3d.hub.fill import fill_model
from nl3d.training.checkpoint import LAST, read_checkpoint, without_prefix
from nl3d.training.config import TrainingConfig
from nl3d.training.networks import BEST, rebuild_network


def load_run(run: str | Path, which: Literal["last", "best"] = "last", *, classifier: bool = False) -> nn.Module:
    """Return the network of a run, in evaluation mode; ``pretrained_cfg`` describes its clips.

    ``"last"`` takes the averaged weights where there are any, as the evaluation does. ``"best"`` was chosen on the test
    people.

    Args:
        run: Folder of the run.
        which: Weights of the last epoch, or of the best evaluation.
        classifier: Whether to keep the classifier of the training people.

    Raises:
        FileNotFoundError: If the run has no such weights.
        ValueError: If ``which`` is unknown, or the file is damaged.
    """
    if which not in ("last", "best"):
        raise ValueError(f"which must be 'last' or 'best', got {which!r}")
    tensors, state = read_checkpoint(Path(run) / (BEST if which == "best" else LAST))
    config = TrainingConfig(**state["config"])
    if which == "last":
        tensors = without_prefix("average" if config.ema else "model", tensors)
    weights = [tensor for name, tensor in tensors.items() if name == "head.classifier.weight"]
    if not classifier:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.classifier.")}
    num_classes = len(weights[0]) if classifier and weights else 0
    with torch.device("meta"):
        model = rebuild_network(state["network"], config, num_classes)
    fill_model(model, tensors)
    return model.eval()
