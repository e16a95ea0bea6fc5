"""Data sets by name, as a configuration gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nl3d.data.dataset import ReIDDataset
from nl3d.data.readers.dukemtmc_videoreid import read_dukemtmc_videoreid
from nl3d.data.readers.ilids_vid import read_ilids_vid
from nl3d.data.readers.ls_vid import read_ls_vid
from nl3d.data.readers.manifest import read_manifest
from nl3d.data.readers.mars import read_mars
from nl3d.data.readers.prid2011 import read_prid2011
from nl3d.data.readers.tree import read_tree
from nl3d.training.config import TrainingConfig
from nl3d.walkers.dataset import read_walkers

READERS: dict[str, Callable[..., ReIDDataset]] = {
    "mars": read_mars,
    "ilids-vid": read_ilids_vid,
    "prid2011": read_prid2011,
    "dukemtmc-videoreid": read_dukemtmc_videoreid,
    "ls-vid": read_ls_vid,
    "tree": read_tree,  # pid/camid/tracklet/*.jpg
    "manifest": read_manifest,  # a CSV table
}
WITH_SPLITS = ("ilids-vid", "prid2011")
DATASETS = ("walkers", *READERS)


def read_dataset(config: TrainingConfig) -> ReIDDataset:
    """Read the data set of a configuration.

    Raises:
        ValueError: If the name is unknown, ``root`` or ``split`` does not fit it, there are fewer people than P, or
            what is read contradicts itself.
        TypeError: If ``data_args`` has an argument that the reader does not know.
        FileNotFoundError: If a file is missing.
    """
    name = config.dataset
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    if config.split and name not in WITH_SPLITS:
        raise ValueError(f"split must be 0 for {name}, which has one, got {config.split}")
    if name == "walkers":
        options: dict[str, Any] = {"size": (config.height, config.width), **config.data_args}
        dataset = read_walkers(config.root, **options)
    else:
        if config.root is None:
            raise ValueError(f"root must be given for {name}: the folder that holds it")
        splits = {"split": config.split} if name in WITH_SPLITS else {}
        dataset = READERS[name](config.root, **splits, **config.data_args)
    if dataset.num_train_pids < config.num_pids:
        raise ValueError(
            f"num_pids must be at most the {dataset.num_train_pids} people of {dataset.name} to train on, "
            f"got {config.num_pids}"
        )
    return dataset
