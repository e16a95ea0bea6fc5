"""Everything a run needs to go on, in one safetensors file that is either the old one or the new one.

A checkpoint is one file because one rename is atomic and two are not. Tensors (weights, moments, averages, states of
random generators) are entries; everything else is JSON in the file's header. Nothing is ever pickled.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_HEADER = "nl3d"  # the only key of the header, so that equal states are equal bytes


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that the file at ``path`` is whole at every moment, whenever the process is killed.

    Args:
        path: File to write or replace.
        tensors: Named tensors, on any device.
        state: Anything JSON can hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(flat, unfinished, metadata={_HEADER: json.dumps(state)})
    replace_durably(unfinished, path)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is whole at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text)
    replace_durably(unfinished, path)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for one process, until it leaves or dies.

    Raises:
        ValueError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            import fcntl

            fcntl.lockf(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # of this process alone: loader processes do not inherit it
        except BlockingIOError:
            raise ValueError(
                f"run {str(folder)!r} is being trained by another process; wait for it, or choose another output"
            ) from None
        except (ImportError, OSError):  # no such locks here
            pass
        yield


def replace_durably(unfinished: Path, path: Path) -> None:
    """Rename, and see to it that neither the bytes nor the name are lost with the power."""
    _sync(unfinished)
    unfinished.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state that :func:`write_checkpoint` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such a file, or only a part of one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint must name an existing file, got {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"checkpoint must be a whole safetensors file, got {str(path)!r} ({error})") from None
    if header is None:
        raise ValueError(f"checkpoint must be one of a training run, got {str(path)!r} without a run's header")
    return tensors, json.loads(header)


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a part's tensors under its name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take a part's tensors out again."""
    start = f"{prefix}."
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors and JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        plain[str(index)] = {}
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                plain[str(index)][name] = value
    return tensors, {"plain": plain, "groups": state["param_groups"]}


def join_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    """Give an optimiser the state that :func:`split_optimizer` took."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in rest["plain"].items()}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state[int(index)][name] = tensor
    groups = [{**group, **_tuples(group)} for group in rest["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _tuples(group: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, optimisers do: the betas."""
    return {name: tuple(value) for name, value in group.items() if isinstance(value, list) and name != "params"}


def seed_generators(seed: int) -> None:
    """Seed all random generators of this process."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what others may draw from


def rng_tensors(device: torch.device) -> dict[str, Tensor]:
    """States of the random generators of this process, each of a size that all ranks share."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state()  # noqa: NPY002 - what others may draw from
    _, key, position, has_gauss, cached = legacy
    assert version == 3
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([gauss is not None, gauss or 0.0], dtype=torch.float64),
        "numpy": torch.tensor([*key.tolist(), position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
    }
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def restore_rng(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the random generators of this process to the states of :func:`rng_tensors`."""
    torch.set_rng_state(tensors["torch"])
    known, gauss = tensors["python_gauss"].tolist()
    random.setstate((3, tuple(tensors["python"].tolist()), gauss if known else None))
    *key, position, has_gauss = tensors["numpy"].tolist()
    words = np.array(key, dtype=np.uint32)
    np.random.set_state(("MT19937", words, position, has_gauss, tensors["numpy_gauss"].item()))  # noqa: NPY002
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
