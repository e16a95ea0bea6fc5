"""Write files whole or not at all, and safetensors files reproducibly: equal contents are equal bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def check_output(
    path: str | Path, *, overwrite: bool, inputs: Iterable[str | Path | None] = (), suffixes: Sequence[str] = ()
) -> Path:
    """Refuse an output that could not be written, or would destroy something else, before any work is done for it.

    Args:
        path: The output. A symbolic link stands for what it leads to.
        overwrite: Whether a file that exists may be replaced.
        inputs: Files that the output must not be, and folders whose pictures it must not be; None is skipped.
        suffixes: Suffixes that the output may have, in lower case; any if empty.
    """
    path = Path(path)
    name = f"output {str(path)!r}"
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{name} must end in {', '.join(suffixes)}, which is its format, got {path.suffix!r}")
    target = Path(os.path.realpath(path))
    if any("\ud800" <= sign <= "\udfff" for sign in str(target)):
        raise ValueError(f"{name} must have a path in UTF-8, since safetensors reads no other")
    if target.is_dir():
        raise IsADirectoryError(f"{name} must be a file, got a folder")
    if target.exists():
        if not target.is_file():
            raise ValueError(f"{name} must be a regular file, got a device, a pipe or a socket; choose another name")
        for source in inputs:
            if source is not None and _destroys(target, Path(source)):
                raise ValueError(f"{name} must not replace an input, {str(source)!r}; choose another name")
        if not overwrite:
            raise FileExistsError(f"{name} exists already; choose another name, or say overwrite")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{name} must lie in a folder that exists, got {str(target.parent)!r}")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"{name} must lie in a folder that may be written to")
    return path


def _destroys(target: Path, source: Path) -> bool:
    """Whether an output that exists is an input, or a picture in an input that is a folder."""
    if source.is_dir():
        return target.suffix.lower() in PICTURES and Path(os.path.realpath(source)) in target.parents
    return source.exists() and source.samefile(target)


@contextmanager
def replacing(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to. It becomes ``path`` at the end, or vanishes if anything goes wrong.

    Permissions follow the umask. What killed processes left behind for the same path is removed.

    Args:
        path: The file. If it is a symbolic link, what it leads to is replaced.
        durable: Whether to wait until the disk holds the file, so that it survives a power failure.
    """
    path = Path(os.path.realpath(path))
    beside, handle = _open_beside(path)
    try:
        if fcntl is None:
            os.close(handle)  # Windows renames no open file
        yield beside
        if durable:
            _sync(beside)
        beside.replace(path)
        if durable:
            _sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        if fcntl is not None:
            os.close(handle)  # the lock goes with it


def _open_beside(path: Path) -> tuple[Path, int]:
    """Open and lock an unfinished file for a path, and remove others whose processes are dead."""
    own = None
    for number in count():
        beside = path.with_name(f".{path.name[:40]}.unfinished{number}{path.suffix}")
        if own is None or beside.exists():
            handle = _lock(beside)
            if handle is not None and own is None:
                own = beside, handle
            elif handle is not None:
                beside.unlink(missing_ok=True)
                os.close(handle)
        if own is not None and number >= 3:
            return own
    raise AssertionError


def _lock(path: Path) -> int | None:
    """Open a file, made if it is not there, and lock it; None if another process that is alive writes to it."""
    created = True
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        created = False
        try:
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:  # another user's, or just gone
            return None
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or path.stat().st_ino != os.fstat(handle).st_ino:  # renamed or removed meanwhile
                os.close(handle)
                return _lock(path)
            os.ftruncate(handle, 0)
            return handle
    except BlockingIOError:
        created = False
    except OSError:  # a file system without locks
        pass
    if created:
        return handle
    os.close(handle)
    return None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically and reproducibly: the bytes depend only on tensors and metadata.

    safetensors itself writes the metadata in an order that changes from run to run, so it is sorted here.

    Args:
        path: The file; replaced if it exists.
        tensors: Tensors on any device, in any layout.
        metadata: Strings for the header; ``format`` is added.
    """
    content = memoryview(save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}))
    start = 8 + int.from_bytes(content[:8], "little")
    header = _header(metadata, json.loads(bytes(content[8:start])))
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(header)
        file.write(content[start:])


LARGEST_HEADER = 100_000_000
"""Bytes of the largest header that safetensors reads."""


def write_safetensors_rows(
    path: str | Path,
    name: str,
    shape: tuple[int, int],
    blocks: Iterable[Tensor],
    others: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write what :func:`write_safetensors` would, byte for byte, with one tensor in blocks.

    Args:
        path: The file; replaced, if it exists, once the new one is whole.
        name: Name of the tensor that comes in blocks.
        shape: Its shape.
        blocks: Its rows, some at a time.
        others: The other tensors.
        metadata: Strings for the header; ``format`` is added.
        dtype: Type of the blocks.
    """
    content = save(
        {**{key: tensor.contiguous() for key, tensor in others.items()}, name: torch.empty(0, shape[1], dtype=dtype)}
    )
    start = 8 + int.from_bytes(content[:8], "little")
    described = json.loads(content[8:start])
    size = dtype.itemsize * shape[0] * shape[1]
    begin = described[name]["data_offsets"][0]  # safetensors chose it: wide types come first
    for key, entry in described.items():
        if entry["data_offsets"][0] >= begin and key != name:
            entry["data_offsets"] = [offset + size for offset in entry["data_offsets"]]
    described[name].update(shape=list(shape), data_offsets=[begin, begin + size])
    header = _header(metadata, described)
    rows = 0
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(header)
        file.write(memoryview(content)[start : start + begin])
        for block in blocks:
            if block.dtype != dtype or block.ndim != 2 or block.shape[1] != shape[1]:
                raise ValueError(f"blocks of {name} must be {dtype} (N, {shape[1]}), got {block.dtype} {block.shape}")
            file.write(block.contiguous().numpy().data)
            rows += len(block)
        if rows != shape[0]:
            raise ValueError(f"blocks of {name} must hold {shape[0]} rows in all, got {rows}")
        file.write(memoryview(content)[start + begin :])


def _header(metadata: Mapping[str, str], described: Mapping[str, object]) -> bytes:
    """Return a header and its length, the same bytes each time, from metadata and the places of the tensors."""
    # paths on Linux may be no UTF-8, which safetensors does not read
    texts = {key: text.encode(errors="backslashreplace").decode() for key, text in metadata.items()}
    whole = {"__metadata__": dict(sorted({"format": "pt", **texts}.items())), **described}
    header = json.dumps(whole, separators=(",", ":")).encode()
    if len(header) > LARGEST_HEADER:
        raise ValueError(f"metadata must fit into a header of {LARGEST_HEADER} bytes, got {len(header)}")
    header += b" " * (-len(header) % 8)  # as safetensors aligns the tensors
    return len(header).to_bytes(8, "little") + header
