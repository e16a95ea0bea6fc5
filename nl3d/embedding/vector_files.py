"""Embeddings out of files, whoever wrote them: those of ``nl3d embed``, NumPy's, safetensors, ``torch.save``."""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nl3d.data.frames.names import require_file
from nl3d.embedding.embeddings import Embeddings
from nl3d.unpickle import load_pickled, recognise

VECTORS = ("embeddings", "features")
WANTED = (*VECTORS, "names", "pids", "camids")
_BROKEN = (
    SafetensorError, ValueError, EOFError, zipfile.BadZipFile, RuntimeError, KeyError, TypeError, AttributeError,
    IndexError, SyntaxError, tokenize.TokenError, OverflowError, MemoryError, OSError, zlib.error, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class VectorFile:
    """Vectors out of a file, and what the file says of them.

    Args:
        path: The file.
        vectors: ``(N, D)``, floating point.
        names: Names of the tracklets.
        pids: ``(N,)`` int64, identities.
        camids: ``(N,)`` int64, cameras.
        made_by: Which ``network`` and ``output`` of which ``model`` and ``weights`` made them, where the file says so.
    """

    path: Path
    vectors: Tensor
    names: tuple[str, ...] | None = None
    pids: Tensor | None = None
    camids: Tensor | None = None
    made_by: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.vectors)


def read_vectors(path: str | Path) -> VectorFile:
    """Read embeddings from a file, by its suffix.

    ``.safetensors``, ``.npz`` and ``.pt`` hold ``embeddings`` or ``features`` ``(N, D)`` and, if known, ``pids``,
    ``camids`` and ``names``, one entry a row; what else they hold is not read. In safetensors, which has no text, names
    are a JSON list in the metadata. ``.npy``, and a tensor by itself in ``.pt``, are embeddings and nothing else. Files
    are never allowed to run code.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or its entries do not fit each other.
    """
    path = require_file(path, what="embeddings file", remedy="nl3d embed writes one")
    where = f"embeddings file {str(path)!r}"
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{where} must end in {', '.join(READERS)}")
    if kind := recognise(path) if path.suffix.lower() != ".npy" else None:
        raise ValueError(f"{where} must hold embeddings, but is {kind}")
    try:
        found = read(path)
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(f"{where} cannot be read: {reason}") from None
    keys = [key for key in VECTORS if key in found]
    if len(keys) != 1:
        held = ", ".join(map(repr, found)) or "nothing"
        raise ValueError(f"{where} must hold either 'embeddings' or 'features', got {held}")
    vectors = _vectors(found[keys[0]], f"{keys[0]} of {str(path)!r}")
    names = found.get("names")
    return VectorFile(
        path=path,
        vectors=vectors,
        names=None if names is None else _names(names, len(vectors), f"names of {str(path)!r}"),
        pids=_labels(found.get("pids"), len(vectors), f"pids of {str(path)!r}"),
        camids=_labels(found.get("camids"), len(vectors), f"camids of {str(path)!r}"),
        made_by=found.get("made_by", {}),
    )


def _vectors(values: Any, what: str) -> Tensor:
    if not isinstance(values, Tensor):
        array = _as_array(values, what)
        is_number = array.dtype.kind in "iufb" and array.dtype.itemsize <= 8
        values = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False)) if is_number else array
    if values.ndim != 2 or not isinstance(values, Tensor) or not values.is_floating_point():
        raise ValueError(f"{what} must be floating point (N, D), got {values.dtype} {tuple(values.shape)}")
    return values.detach()


def _names(values: Any, count: int, what: str) -> tuple[str, ...]:
    names = _as_array(values, what)
    if names.shape != (count,):
        raise ValueError(f"{what} must be {count}, one for each embedding, got an array of shape {names.shape}")
    return tuple(names.astype(str).tolist())


def _labels(values: Any, count: int, what: str) -> Tensor | None:
    if values is None:
        return None
    labels = _as_array(values, what)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{what} must be whole numbers, got {labels.dtype}; a table of labels may hold names")
    if labels.shape != (count,):
        raise ValueError(f"{what} must be {count}, one for each embedding, got an array of shape {labels.shape}")
    return torch.from_numpy(labels.astype(np.int64))


def _as_array(values: Any, what: str) -> NDArray[Any]:
    try:
        return values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be an array of numbers or text, got {type(values).__name__}") from None


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("content") != "nl3d embeddings":
            found: dict[str, Any] = {key: file.get_tensor(key) if key in WANTED else None for key in file.keys()}
            return {**found, "names": json.loads(metadata["names"])} if "names" in metadata else found
    own = Embeddings.load(path)
    made_by = {key: own.metadata[key] for key in ("model", "weights", "network", "output") if own.metadata.get(key)}
    fields = {"embeddings": own.embeddings, "names": own.names, "pids": own.pids, "camids": own.camids}
    return {**fields, "made_by": made_by}


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] if key in WANTED else None for key in arrays.files}


def _read_npy(path: Path) -> dict[str, Any]:
    return {"embeddings": np.load(path, allow_pickle=False)}


def _read_torch(path: Path) -> dict[str, Any]:
    content = load_pickled(path)
    if isinstance(content, Mapping):
        return {str(key): value for key, value in content.items()}
    return {"embeddings": content}


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".pt": _read_torch,
    ".pth": _read_torch,
}
