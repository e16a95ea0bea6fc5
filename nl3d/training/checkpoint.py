"""Checkpoints: everything a run needs to resume, in one safetensors file that is always whole.

A checkpoint is one file because one rename is atomic and two are not. Tensors (weights, moments, averages, states of
random generators) are entries; everything else is JSON in the file's header. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nl3d.files import replacing
from nl3d.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

LAST = "last.safetensors"
MAY_CHANGE = {"root", "num_workers", "eval_batch", "checkpoint_every", "rank_timeout"}
"""Options that a resumed run may change."""

_HEADER = "nl3d"  # the only key of the header, so that equal states are equal bytes
_REMEDY = "remove it to train from the start"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whenever the process is killed, the file at ``path`` is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with replacing(path, durable=True) as unfinished:
            save_file(flat, unfinished, metadata={_HEADER: json.dumps(state)})
    except SafetensorError as error:
        raise OSError(
            f"checkpoint {str(path)!r} cannot be written ({error}); make room on the disk, and the same command resumes"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a small file in the same way as a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=True) as unfinished:
        unfinished.write_text(text)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for this process until the block ends or the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by loader processes
        except BlockingIOError:
            raise ValueError(
                f"run {str(folder)!r} is being trained by another process; wait for it, or choose another output"
            ) from None
        except (ImportError, OSError):  # Windows, or a file system without locks
            pass
        yield


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the state that :func:`write_checkpoint` wrote."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint must name an existing file, got {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        state = json.loads(header) if header is not None else None
    except (SafetensorError, OSError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise ValueError(f"checkpoint must be whole, got {str(path)!r} ({fault}); {_REMEDY}") from None
    if not isinstance(state, dict):
        raise ValueError(f"checkpoint must be one of a training run, got {str(path)!r} without a run's header")
    return tensors, state


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a part's tensors under names that begin with the part's."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of one part under their own names."""
    start = f"{prefix}."
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimiser's state as tensors and plain data."""
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
    """Load the state that :func:`split_optimizer` returned."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in rest["plain"].items()}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state[int(index)][name] = tensor
    groups = [{**group, **_tuples(group)} for group in rest["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _tuples(group: Mapping[str, Any]) -> dict[str, Any]:
    """Restore the tuples of an optimiser, the betas, which JSON turned into lists."""
    return {name: tuple(value) for name, value in group.items() if isinstance(value, list) and name != "params"}


def seed_generators(seed: int) -> None:
    """Seed all random generators of this process."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - other libraries draw from it


def rng_tensors(device: torch.device) -> dict[str, Tensor]:
    """Return the states of this process's random generators, each of a size that all ranks share."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state()  # noqa: NPY002 - other libraries draw from it
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


def changed_options(config: TrainingConfig, other: Mapping[str, Any]) -> list[str]:
    """Return the names of the options that decide the result and differ from those of a saved run."""
    mine = json.loads(json.dumps(dataclasses.asdict(config)))
    return sorted(name for name in (mine.keys() | other.keys()) - MAY_CHANGE if mine.get(name) != other.get(name))


def check_same_run(
    run: Path, state: Mapping[str, Any], config: TrainingConfig, num_processes: int, criterion: str
) -> None:
    """Refuse to resume with another configuration, number of processes or loss."""
    there = state.get("config")
    if not isinstance(there, dict):
        raise ValueError(f"checkpoint of {str(run)!r} must hold a configuration, which it lacks; {_REMEDY}")
    names = changed_options(config, there)
    if names:
        changes = ", ".join(
            f"{name} {there.get(name)!r} there and {getattr(config, name, None)!r} here" for name in names
        )
        raise ValueError(
            f"run must resume with its first configuration, but {str(run)!r} has {changes}; "
            "give the same options again, or choose another output"
        )
    for name, here in (("num_processes", num_processes), ("criterion", criterion)):
        if state.get(name) != here:
            raise ValueError(f"run must resume with the {name} it began with, {state.get(name)}, got {here}")


def gather_rng(accelerator: Accelerator) -> list[dict[str, Tensor]]:
    """Return the states of the random generators of all ranks, on every rank."""
    mine = rng_tensors(accelerator.device)
    if accelerator.num_processes == 1:
        return [mine]
    pieces = {name: accelerator.gather(tensor[None].to(accelerator.device)).cpu() for name, tensor in mine.items()}
    return [{name: stacked[rank] for name, stacked in pieces.items()} for rank in range(accelerator.num_processes)]
