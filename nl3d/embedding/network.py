"""Before a network embeds: its layer and its device."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

SEED = 0
"""Seed of networks without weights."""


def choose_layer(model: nn.Module) -> Literal["features", "embedding"]:
    """Choose the embedding if a checkpoint filled the layers that make it, else the pooled features.

    ``model.new_tensors`` names the tensors that no checkpoint filled. A network without it was never loaded.
    """
    new = getattr(model, "new_tensors", None)
    if new is None or any(name.startswith("head.") and not name.startswith("head.classifier") for name in new):
        return "features"
    return "embedding"


def load_network(model: nn.Module | str | os.PathLike[str] | None = None) -> nn.Module:
    """Return a network as it is, or load it: see :func:`nl3d.from_pretrained`. The bundled one if left out.

    Raises:
        FileNotFoundError: If a path does not exist.
        TypeError: If it is neither a network nor a name.
        ValueError: If the name is unknown.
    """
    if isinstance(model, nn.Module):
        return model
    if not isinstance(model, str | os.PathLike | None):
        raise TypeError(f"model must be a network or the name of one, got {type(model).__name__}")
    from nl3d.weights.load import from_pretrained

    return from_pretrained("bundled" if model is None else model, num_classes=0)


def seeded(factory: Callable[[], nn.Module], seed: int = SEED) -> nn.Module:
    """Build a network without weights, the same in every run, without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Resolve ``"auto"`` to the best device there is.

    Raises:
        ValueError: If the device is unknown or missing.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be one that is there, such as 'cpu', got {str(device)!r}: {reason}") from error
    return picked


def device_of_rank(device: str | torch.device | None, local_rank: int) -> str | torch.device | None:
    """Assign each process of a machine a GPU, if the device is ``"auto"`` or ``"cuda"`` without a number.

    With fewer GPUs than processes, they share them.
    """
    if str(device) not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    return torch.device("cuda", local_rank % torch.cuda.device_count())
