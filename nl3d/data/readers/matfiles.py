"""Tables of whole numbers from MATLAB files, before version 7.3 (scipy) and since (HDF5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nl3d.data.frames.names import require_file

_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_mat(path: str | Path, key: str) -> NDArray[np.int64]:
    """Read one table of whole numbers.

    Args:
        path: The ``.mat`` file, of MATLAB version 7.3 (which is HDF5) or before.
        key: Name of the table.

    Shape:
        - Output: ``(rows, columns)``, as MATLAB shows it

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If scipy, or h5py for version 7.3, is not installed.
        ValueError: If the file does not parse, has no such table, or one of other values than whole numbers.
    """
    path = require_file(path, what="file")
    with path.open("rb") as file:
        start = file.read(520)
    table = _read_hdf5(path, key) if _HDF5 in (start[:8], start[512:]) else _read_old(path, key)
    if table.ndim != 2 or table.dtype.kind not in "iuf" or not np.all(table == np.round(table)):
        raise ValueError(
            f"{str(path)!r}: {key!r} must be a table of whole numbers, got {table.dtype} of shape {table.shape}"
        )
    return table.astype(np.int64)


def read_query_rows(path: str | Path, key: str, num_rows: int) -> NDArray[np.int64]:
    """Read which rows of a test table are queries, from 0; the file counts from 1.

    Args:
        path: The ``.mat`` file.
        key: Name of the table, one row or one column.
        num_rows: Rows of the test table.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not parse, or its numbers are not rows of the test table, each once.
    """
    table = read_mat(path, key)
    if 1 not in table.shape or not table.size:
        raise ValueError(f"{str(path)!r}: {key!r} must be one row or one column, got {table.shape}")
    rows = table.reshape(-1) - 1
    if rows.min() < 0 or rows.max() >= num_rows:
        found = f"{rows.min() + 1} to {rows.max() + 1}"
        raise ValueError(f"{str(path)!r}: {key!r} must be rows from 1 to {num_rows} of the test table, got {found}")
    if len(np.unique(rows)) != len(rows):
        raise ValueError(f"{str(path)!r}: rows of {key!r} must differ, got one more than once")
    return rows


def _read_old(path: Path, key: str) -> NDArray[Any]:
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading .mat files needs scipy; install it with: pip install 'nl3d[data]'"
        ) from error
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises half a dozen types
        raise ValueError(f"file {str(path)!r} must be a MATLAB file, but does not parse: {error}") from error
    if key not in content:
        raise _no_table(path, key, [name for name in content if not name.startswith("__")])
    return np.asarray(content[key])


def _read_hdf5(path: Path, key: str) -> NDArray[Any]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{str(path)!r} is a MATLAB 7.3 file, which needs h5py; install it with: pip install 'nl3d[data]'"
        ) from error
    try:
        with h5py.File(path, "r") as content:
            if key not in content:
                raise KeyError
            if not isinstance(content[key], h5py.Dataset):
                raise ValueError(f"{str(path)!r}: {key!r} must be a table of whole numbers, got a group")
            return np.asarray(content[key]).T  # HDF5 keeps MATLAB's columns as rows
    except KeyError:
        with h5py.File(path, "r") as content:
            raise _no_table(path, key, list(content)) from None
    except OSError as error:
        raise ValueError(f"file {str(path)!r} must be a MATLAB file, but does not parse: {error}") from error


def _no_table(path: Path, key: str, found: list[str]) -> ValueError:
    return ValueError(f"file {str(path)!r} must hold the table {key!r}, got {', '.join(map(repr, found)) or 'none'}")
