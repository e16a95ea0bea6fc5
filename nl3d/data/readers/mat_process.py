"""Program that reads one table of a ``.mat`` file, in a process of its own; :mod:`nl3d.data.readers.matfiles` runs it.

scipy and HDF5 crash on some damaged files, and a small file can ask for any amount of memory. Here both end this
process alone. Its one argument is a JSON object with ``sys_path``, ``path``, ``key`` and ``allowance``, the bytes of
memory that reading may add. It writes one line of JSON with ``shape``, then the table as int64; or one with ``error``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

SECONDS = 60  # of one core


class _UnusableError(Exception):
    """The file is read, but does not hold what is asked for."""


def main(sys_path: list[str], path: str, key: str, allowance: int) -> None:
    """Read the table and write the answer to the standard output."""
    sys.path[:] = sys_path
    import numpy as np

    try:
        table = _read(path, key, allowance)
        if table.ndim != 2 or table.dtype.kind not in "iuf" or not np.all(table == np.round(table)):
            raise _UnusableError(f"{key!r} must be a table of whole numbers, got {table.dtype} of shape {table.shape}")
        values = np.ascontiguousarray(table, dtype=np.int64).tobytes()
        answer, content = {"shape": table.shape}, values
    except _UnusableError as error:
        answer, content = {"error": str(error)}, b""
    except MemoryError:
        answer, content = {"error": "must be a MATLAB file, but would take far more memory than it has bytes"}, b""
    except Exception as error:  # scipy raises half a dozen types
        answer, content = {"error": f"must be a MATLAB file, but does not parse: {error}"}, b""
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + content)


def _read(path: str, key: str, allowance: int) -> Any:
    import numpy as np

    with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes long to import
        start = file.read(520)
    if b"\x89HDF\r\n\x1a\n" in (start[:8], start[512:]):  # MATLAB puts a header of 512 bytes before HDF5's
        import h5py

        _limit(allowance)
        with h5py.File(path, "r") as file:
            if key not in file:
                raise _missing(key, list(file))
            if not isinstance(file[key], h5py.Dataset):
                raise _UnusableError(f"{key!r} must be a table of whole numbers, got a group")
            return np.asarray(file[key]).T  # HDF5 keeps MATLAB's columns as rows
    from scipy.io import loadmat

    _limit(allowance)
    content = loadmat(path)
    if key not in content:
        raise _missing(key, [name for name in content if not name.startswith("__")])
    return np.asarray(content[key])


def _missing(key: str, found: list[str]) -> _UnusableError:
    return _UnusableError(f"must hold the table {key!r}, got {', '.join(map(repr, found[:20])) or 'none'}")


def _limit(allowance: int) -> None:
    """Limit the memory that the file adds to what this process has, and its time."""
    with contextlib.suppress(ImportError, FileNotFoundError):  # Windows, macOS
        import resource

        with open("/proc/self/statm") as file:  # noqa: PTH123
            here = int(file.read().split()[0]) * resource.getpagesize()
        for kind, most in ((resource.RLIMIT_AS, here + allowance), (resource.RLIMIT_CPU, SECONDS)):
            already = resource.getrlimit(kind)[1]
            most = most if already == resource.RLIM_INFINITY else min(most, already)
            resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
