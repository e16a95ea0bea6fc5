"""Data sets by name, as a configuration gives them."""

from __future__ import annotations

from typing import Any

from nl3d.data.dataset import ReIDDataset
from nl3d.data.readers.registry import READERS
from nl3d.training.config import TrainingConfig
from nl3d.walkers.dataset import read_walkers


def read_dataset(config: TrainingConfig) -> ReIDDataset:
    """Read the data set of a configuration.

    Raises:
        ValueError: If the name is unknown, ``root`` or ``split`` does not fit it, there are fewer people than P, or
            what is read contradicts itself.
        TypeError: If ``data_args`` has an argument that the reader does not know.
        FileNotFoundError: If a file is missing.
    """
    name = config.dataset
    reader = READERS.get(name)
    if reader is None and name != "walkers":
        raise ValueError(f"dataset must be one of walkers, {', '.join(READERS)}, got {name!r}")
    if config.split and not (reader and reader.splits):
        raise ValueError(f"split must be 0 for {name}, which has one, got {config.split}")
    if reader is None:
        options: dict[str, Any] = {"size": (config.height, config.width), **config.data_args}
        dataset = read_walkers(config.root, **options)
    else:
        if config.root is None:
            raise ValueError(f"root must be given for {name}: the folder that holds it")
        dataset = reader.read(config.root, **({"split": config.split} if reader.splits else {}), **config.data_args)
    if dataset.num_train_pids < config.num_pids:
        raise ValueError(
            f"num_pids must be at most the {dataset.num_train_pids} people of {dataset.name} to train on, "
            f"got {config.num_pids}"
        )
    return dataset
