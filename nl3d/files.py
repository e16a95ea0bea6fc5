"""Files that are written whole or not at all, and safetensors files that are the same bytes each time."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
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
    header = _header(metadata, json.loads(bytes(content[8:start])))
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(content[start:])


LARGEST_HEADER = 100_000_000
"""Bytes of a header that safetensors still reads."""


def write_safetensors_rows(
    path: str | Path,
    name: str,
    shape: tuple[int, int],
    blocks: Iterable[Tensor],
    others: Mapping[str, Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write what :func:`write_safetensors` would, byte for byte, with one tensor in blocks.

    Args:
        path: The file; one that is there is replaced, once the new one is whole.
        name: Name of the tensor that comes in blocks, float32.
        shape: Its shape.
        blocks: Its rows, some at a time.
        others: Tensors of whole numbers, int64.
        metadata: Strings that go into the header; ``format`` is added.

    Raises:
        ValueError: If the blocks are not of that shape, or the header is too large.
    """
    # safetensors says where tensors lie: those of wide types come first, so that the one in blocks is the last.
    content = save({**{key: tensor.contiguous() for key, tensor in others.items()}, name: torch.empty(0, shape[1])})
    start = 8 + int.from_bytes(content[:8], "little")
    described = json.loads(content[8:start])
    begin = described[name]["data_offsets"][0]
    assert begin == len(content) - start, "the tensor in blocks must come last"
    described[name].update(shape=list(shape), data_offsets=[begin, begin + 4 * shape[0] * shape[1]])
    header = _header(metadata, described)
    if len(header) > LARGEST_HEADER:
        raise ValueError(f"metadata must fit into a header of {LARGEST_HEADER} bytes, got {len(header)}")
    rows = 0
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(memoryview(content)[start:])
        for block in blocks:
            if block.dtype != torch.float32 or block.ndim != 2 or block.shape[1] != shape[1]:
                raise ValueError(f"blocks of {name} must be float32 (N, {shape[1]}), got {block.dtype} {block.shape}")
            file.write(block.contiguous().numpy().data)
            rows += len(block)
        if rows != shape[0]:
            raise ValueError(f"blocks of {name} must hold {shape[0]} rows in all, got {rows}")


def _header(metadata: Mapping[str, str], described: Mapping[str, object]) -> bytes:
    """Put metadata and the places of tensors into a header that is the same bytes each time."""
    # paths on Linux may be no UTF-8, which safetensors does not read
    texts = {key: text.encode(errors="backslashreplace").decode() for key, text in metadata.items()}
    whole = {"__metadata__": dict(sorted({"format": "pt", **texts}.items())), **described}
    header = json.dumps(whole, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)  # as safetensors aligns the tensors
