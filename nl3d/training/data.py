"""Data sets by name, as a configuration gives them."""

from __future__ import annotations

from nl3d.data.dataset import ReIDDataset
from nl3d.data.readers.registry import READERS
from nl3d.training.config import TrainingConfig
from nl3d.walkers.dataset import read_walkers


def read_dataset(config: TrainingConfig) -> ReIDDataset:
    """Read the data set of a configuration."""
    name = config.dataset
    reader = READERS.get(name)
    if reader is None and name != "walkers":
        raise ValueError(f"dataset must be one of walkers, {', '.join(READERS)}, got {name!r}")
    if config.split and not (reader and reader.splits):
        raise ValueError(f"split must be 0 for {name}, which has one, got {config.split}")
    if reader and config.root is None:
        raise ValueError(f"root must be given for {name}: the folder that holds it")
    try:
        if reader is None:
            dataset = read_walkers(config.root, **{"size": (config.height, config.width), **config.data_args})
        else:
            dataset = reader.read(config.root, **({"split": config.split} if reader.splits else {}), **config.data_args)
    except TypeError as error:
        if not config.data_args:
            raise
        raise ValueError(f"data_args must be arguments of {name}, got {config.data_args} ({error})") from None
    if not dataset.train:
        raise ValueError(f"dataset must have people to train on, but {dataset.name} has none")
    if dataset.num_train_pids < config.num_pids:
        raise ValueError(
            f"num_pids must be at most the {dataset.num_train_pids} people of {dataset.name} to train on, "
            f"got {config.num_pids}"
        )
    return dataset
