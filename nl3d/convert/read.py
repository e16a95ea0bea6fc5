"""Files of weights, read without running anything that they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nl3d.unpickle import is_pickled, load_pickled, recognise

_SLOTS = ("state_dict", "model_state", "model_state_dict", "model", "net", "network", "weights", "blobs", "params")
_PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True)
class ForeignCheckpoint:
    """Tensors of a file under their own names, and its other entries.

    Attributes:
        tensors: Names and tensors, without a prefix that all of them have.
        extras: Other entries of the file: epoch, configuration, optimiser.
        prefix: The prefix that was removed, such as ``module.``.
        source: The file's name, for messages.
    """

    tensors: dict[str, Tensor]
    extras: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    source: str = "the state dict"

    @property
    def dtype(self) -> str:
        """Floating-point type of most values, such as ``"float16"``."""
        counts: dict[str, int] = {}
        for tensor in self.tensors.values():
            if tensor.is_floating_point():
                name = str(tensor.dtype).removeprefix("torch.")
                counts[name] = counts.get(name, 0) + tensor.numel()
        return max(counts, key=lambda name: counts[name], default="float32")


def read_checkpoint(source: str | Path | Mapping[str, Any]) -> ForeignCheckpoint:
    """Read weights from safetensors, zip or legacy ``.pth``, a pickle of numpy arrays (Caffe2), or a state dict.

    The tensors are the caller's own: they share no memory with a mapped file or with the state dict that was given.
    """
    if isinstance(source, nn.Module):
        raise TypeError(f"path_or_state_dict must be a path or a state dict, got {type(source).__name__}; pass its "
                        "state_dict()")  # fmt: skip
    if isinstance(source, Mapping):
        checkpoint = _unwrap(source, {}, "the state dict")
        copies = {key: tensor.detach().clone() for key, tensor in checkpoint.tensors.items()}
        return ForeignCheckpoint(copies, checkpoint.extras, checkpoint.prefix, checkpoint.source)
    if not isinstance(source, (str, Path)):
        raise TypeError(f"path_or_state_dict must be a path or a state dict, got {type(source).__name__}")
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"path_or_state_dict must be a file of weights, got {str(source)!r}, which does not exist"
        )
    if kind := recognise(path):
        raise ValueError(f"{path.name} must be a file of weights, but is {kind}")
    extras: dict[str, Any] = {}
    try:
        content = load_pickled(path) if is_pickled(path) else _read_safetensors(path, extras)
    except (ValueError, SafetensorError) as error:
        raise ValueError(_refusal(path, error)) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path.name} must hold a state dict, but holds a {type(content).__name__}")
    return _unwrap(content, extras, path.name)


def _read_safetensors(path: Path, extras: dict[str, Any]) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if file.read(9)[8:] != b"{":
            raise ValueError("no safetensors, torch.save or pickle file")
    with safe_open(str(path), framework="pt") as file:
        extras.update(file.metadata() or {})
        # Copies: a mapped tensor breaks when another process rewrites the file.
        return {key: file.get_tensor(key).clone() for key in file.keys()}


def _refusal(path: Path, error: BaseException) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named is None:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason += "" if ";" in reason else "; download or write it again"
        return f"{path.name} must be a whole file of weights, but could not be read: {reason}"
    return (
        f"{path.name} must hold nothing but tensors and numbers, but names {named[1]}, which is not run here; load it "
        "with the code it came from and save its state_dict() alone"
    )


def _unwrap(content: Mapping[Any, Any], extras: dict[str, Any], source: str) -> ForeignCheckpoint:
    """Find the state dict in a training checkpoint, and remove a prefix that at least nine keys in ten have.

    Keys without the prefix stay as they are, so that the converter can name them.
    """
    for slot in _SLOTS:
        inner = content.get(slot)
        if isinstance(inner, Mapping) and _has_tensors(inner):
            beside = {str(key): value for key, value in content.items() if key != slot}
            return _unwrap(inner, {**extras, **beside}, source)
    tensors: dict[str, Tensor] = {}
    extras = dict(extras)
    if hasattr(content, "_metadata"):
        extras["_metadata"] = content._metadata
    for key, value in content.items():
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        if isinstance(tensor, Tensor):
            tensors[str(key)] = tensor.detach()
        else:
            extras[str(key)] = value
    if not tensors:
        keys = ", ".join(map(repr, list(content)[:6])) or "no key"
        raise ValueError(f"{source} must hold tensors, but holds none: {keys}")
    prefix = ""
    while taken := next((p for p in _PREFIXES if 10 * sum(map(partial(_starts, p), tensors)) > 9 * len(tensors)), None):
        bare = {key.removeprefix(taken): tensor for key, tensor in tensors.items()}
        if len(bare) < len(tensors):
            raise ValueError(f"{source} must name each tensor once, but some keys stand with {taken!r} and without")
        tensors = bare
        prefix += taken
    return ForeignCheckpoint(tensors, extras, prefix, source)


def _starts(prefix: str, key: str) -> bool:
    return key.startswith(prefix)


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(
        isinstance(value, (Tensor, np.ndarray)) or (key in _SLOTS and isinstance(value, Mapping))
        for key, value in content.items()
    )
