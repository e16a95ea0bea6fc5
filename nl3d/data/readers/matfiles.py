"""Tables of whole numbers from MATLAB files, before version 7.3 (scipy) and since (HDF5).

Either library reads in a process of its own, :mod:`nl3d.data.readers.mat_process`, since both crash on some damaged
files.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nl3d.data.frames.names import require_file

PROGRAM = Path(__file__).with_name("mat_process.py")
ALLOWANCE = 256 * 2**20  # bytes of memory beyond twice the file's size
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
        ValueError: If the file does not parse, crashes the library, takes far more memory than it has bytes, has no
            such table, or one of other values than whole numbers.
    """
    path = require_file(path, what="file")
    with path.open("rb") as file:
        start = file.read(520)
    library = "h5py" if _HDF5 in (start[:8], start[512:]) else "scipy"
    if find_spec(library) is None:
        raise ModuleNotFoundError(
            f"reading {str(path)!r} needs {library}; install it with: pip install 'nl3d[data]'", name=library
        )
    head, _, values = _run(path, key).partition(b"\n")
    answer = json.loads(head)
    if "error" in answer:
        raise ValueError(f"file {str(path)!r} {answer['error']}")
    return np.frombuffer(values, np.int64).reshape(answer["shape"]).copy()


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


def _run(path: Path, key: str) -> bytes:
    """Run the reading process; gives what it wrote."""
    request = {
        "sys_path": sys.path,
        "path": str(path),
        "key": key,
        "allowance": 2 * path.stat().st_size + ALLOWANCE,
    }
    command = [sys.executable, "-I", str(PROGRAM), json.dumps(request)]
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads take memory each
    done = subprocess.run(command, env={**os.environ, **one_thread}, capture_output=True, check=False)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ValueError(f"file {str(path)!r} must be a MATLAB file, but its reader crashed on it ({name})")
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"file {str(path)!r} cannot be read as a MATLAB file: {last}")
    return done.stdout
