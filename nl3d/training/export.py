"""A run's weights as a network for everything else of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nl3d.hub.fill import fill_model
from nl3d.hub.pretrained import WEIGHTS_FILE, PretrainedMixin
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


def export_run(
    run: str | Path,
    folder: str | Path,
    which: Literal["last", "best"] = "last",
    *,
    half: bool = False,
    overwrite: bool = False,
    **about: Any,
) -> int:
    """Write a run's network as ``save_pretrained`` does, without the classifier; return the size of the weights.

    Args:
        run: Folder of the run.
        folder: Folder to write ``model.safetensors``, ``config.json`` and ``README.md`` to.
        which: As for :func:`load_run`.
        half: Whether to write float16, in half of the bytes; it loads as float32.
        overwrite: Whether to replace weights that are in the folder.
        about: Further entries of ``pretrained_cfg``, such as ``license`` and ``description``.

    Raises:
        FileExistsError: If the folder holds weights and ``overwrite`` is off.
        FileNotFoundError: As for :func:`load_run`.
        ValueError: If the network has no ``save_pretrained``.
    """
    written = Path(folder) / WEIGHTS_FILE
    if written.exists() and not overwrite:
        raise FileExistsError(
            f"output {str(written)!r} exists already; choose another folder, or pass --overwrite (overwrite=True)"
        )
    model = load_run(run, which)
    if not isinstance(model, PretrainedMixin):
        raise ValueError(f"run must be of a network with save_pretrained, got {type(model).__name__}")
    config: Any = model.pretrained_cfg
    config.update(about)
    (model.half() if half else model).save_pretrained(folder)
    return written.stat().st_size
