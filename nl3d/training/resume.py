"""What a resumed run needs beside its own state: that it is the same run, and the other ranks' random generators."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nl3d.training.checkpoint import rng_tensors
from nl3d.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

LAST = "last.safetensors"
MAY_CHANGE = {
    "root",
    "num_workers",
    "eval_batch",
    "checkpoint_every",
    "rank_timeout",
}  # what a resumed run may do differently


def changed_options(config: TrainingConfig, other: Mapping[str, Any]) -> list[str]:
    """Names of the options that decide the result and differ from those of a saved run."""
    mine = json.loads(json.dumps(dataclasses.asdict(config)))
    return sorted(name for name in (mine.keys() | other.keys()) - MAY_CHANGE if mine.get(name) != other.get(name))


def check_same_run(run: Path, state: Mapping[str, Any], config: TrainingConfig, num_processes: int) -> None:
    """Refuse to go on with another configuration or number of processes.

    Raises:
        ValueError: If one of them differs.
    """
    there = state["config"]
    names = changed_options(config, there)
    if names:
        changes = ", ".join(
            f"{name} {there.get(name)!r} there and {getattr(config, name, None)!r} here" for name in names
        )
        raise ValueError(f"run must have its first configuration to go on, but {str(run)!r} has {changes}")
    if state["num_processes"] != num_processes:
        raise ValueError(
            f"run must go on with as many processes as it was begun with, {state['num_processes']}, got {num_processes}"
        )


def gather_rng(accelerator: Accelerator) -> list[dict[str, Tensor]]:
    """States of the random generators of all ranks, on every rank."""
    mine = rng_tensors(accelerator.device)
    if accelerator.num_processes == 1:
        return [mine]
    pieces = {name: accelerator.gather(tensor[None].to(accelerator.device)).cpu() for name, tensor in mine.items()}
    return [{name: stacked[rank] for name, stacked in pieces.items()} for rank in range(accelerator.num_processes)]
