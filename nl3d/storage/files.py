"""Files that are written whole or not at all, and safetensors files that are the same bytes each time."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def check_output(path: str | Path, *, overwrite: bool) -> Path:
    """Refuse an output that could not be written, before any work is done for it.

    Raises:
        FileExistsError: If it exists and ``overwrite`` is off.
        FileNotFoundError: If its folder does not exist.
        IsADirectoryError: If it is a folder.
        PermissionError: If its folder may not be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"output {str(path)!r} must be a file, got a folder")
    if path.exists() and not overwrite:
        raise FileExistsError(f"output {str(path)!r} exists already; choose another name, or say overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"output {str(path)!r} must lie in a folder that exists, got {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"output {str(path)!r} must lie in a folder that may be written to")
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; it becomes ``path`` at the end, or vanishes if anything goes wrong."""
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)  # as any new file, not private as temporary ones are
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, whose bytes hang on tensors and metadata alone.

    safetensors itself writes the metadata in an order that changes from run to run, so that it is put in here.

    Args:
        path: The file; one that is there is replaced.
        tensors: Tensors of any device and layout.
        metadata: Strings that go into the header; ``format`` is added.
    """
    content = memoryview(save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}))
    start = 8 + int.from_bytes(content[:8], "little")
    described = {
        "__metadata__": dict(sorted({"format": "pt", **metadata}.items())),
        **json.loads(bytes(content[8:start])),
    }
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # as safetensors aligns the tensors
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(content[start:])
