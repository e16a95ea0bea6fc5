"""Readers of data sets by name, for configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nl3d.data.dataset import ReIDDataset
from nl3d.data.readers.ccvid import read_ccvid
from nl3d.data.readers.dukemtmc_videoreid import read_dukemtmc_videoreid
from nl3d.data.readers.ilids_vid import read_ilids_vid
from nl3d.data.readers.ls_vid import read_ls_vid
from nl3d.data.readers.manifest import read_manifest
from nl3d.data.readers.mars import read_mars
from nl3d.data.readers.prid2011 import read_prid2011
from nl3d.data.readers.tree import read_tree


class Reader(NamedTuple):
    """A function that reads a data set from its root, and whether it takes the number of a split."""

    read: Callable[..., ReIDDataset]
    splits: bool = False


READERS: dict[str, Reader] = {
    "mars": Reader(read_mars),
    "ilids-vid": Reader(read_ilids_vid, splits=True),
    "prid2011": Reader(read_prid2011, splits=True),
    "dukemtmc-videoreid": Reader(read_dukemtmc_videoreid),
    "ls-vid": Reader(read_ls_vid),
    "ccvid": Reader(read_ccvid),
    "tree": Reader(read_tree),
    "manifest": Reader(read_manifest),
}


def register_reader(name: str, reader: Callable[..., ReIDDataset], *, splits: bool = False) -> None:
    """Register a reader of a data set, so that configurations can name it.

    Args:
        name: Value of the option ``dataset``.
        reader: Called as ``reader(root, **data_args)``, with ``split=`` if it has splits.
        splits: Whether the reader takes the number of a random split, ``split``.

    Raises:
        ValueError: If the name is taken by another reader.

    Example:
        >>> register_reader("my-tree", read_tree)
        >>> READERS["my-tree"].splits
        False
    """
    if READERS.get(name, Reader(reader)).read is not reader or name == "walkers":
        raise ValueError(f"reader {name!r} must have a name that is free, taken are walkers, {', '.join(READERS)}")
    READERS[name] = Reader(reader, splits)
