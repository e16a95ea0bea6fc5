"""Pickles of plain data, read without running anything that a file names."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def numpy_vocabulary() -> dict[str, Any]:
    """Everything a file may name, under the names that numpy's pickles of all ages use.

    None of numpy's own functions is among them: what stands here in their place takes numbers and nothing else, and
    gives tensors and numbers. It is built anew for each file, so that no file can change what the next one meets.
    """

    class Number:
        """Kind of number, as of ``numpy.dtype``."""

        def __init__(self, code: str | bytes, align: object = False, copy: object = True) -> None:
            self.code = _text(code).lstrip("<>=|")
            self.order = "<"
            if self.code not in _NUMBERS:
                raise pickle.UnpicklingError(f"arrays must hold numbers, got numpy dtype {_text(code)!r}")

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            order = _text(state[1])
            self.order = order if order in "<>" else "<"

        def numpy(self) -> np.dtype[Any]:
            return np.dtype(self.order + self.code)

    def to_tensor(raw: object, number: Number, shape: tuple[int, ...], order: str) -> Tensor:
        if not isinstance(number, Number) or not isinstance(raw, (bytes, bytearray, str)):
            raise pickle.UnpicklingError("arrays must be raw bytes of one kind of number")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        flat = np.frombuffer(raw, number.numpy())
        own = np.array(flat.reshape(tuple(shape), order=order), dtype=number.numpy().newbyteorder("="), order="C")  # type: ignore[call-overload]
        return torch.from_numpy(own)

    class Array:
        """``numpy.ndarray``: empty at first, then filled by its state."""

        tensor: Tensor

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            _, shape, number, is_fortran, raw = state
            self.tensor = to_tensor(raw, number, shape, "F" if is_fortran else "C")

    def reconstruct(kind: object, shape: object, code: object) -> Array:
        return Array()

    def from_buffer(raw: object, number: Number, shape: tuple[int, ...], order: str | bytes) -> Tensor:
        return to_tensor(raw, number, shape, _text(order))

    def scalar(number: Number, raw: object) -> float:
        return to_tensor(raw, number, (), "C").item()

    def encode(text: str, codec: str | bytes) -> bytes:
        if _text(codec) not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes must be written as latin1, got {codec!r}")
        return text.encode("latin1")

    def no_bytes() -> bytes:
        return b""

    names: dict[str, Any] = {
        "builtins.bytes": no_bytes,
        "__builtin__.bytes": no_bytes,
        "numpy.ndarray": Array,
        "numpy.dtype": Number,
        "_codecs.encode": encode,
        "collections.OrderedDict": OrderedDict,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = reconstruct
        names[f"{core}.multiarray.scalar"] = scalar
        names[f"{core}.numeric._frombuffer"] = from_buffer
    return names


def plain(value: Any) -> Any:
    """Put the tensor in the place of each array that a vocabulary made, and text in the place of Python 2's text."""
    if isinstance(value, dict):
        return {_text(key) if isinstance(key, bytes) else key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value) if type(value) in (list, tuple) else value
    if isinstance(value, bytes):
        return _text(value)
    return getattr(value, "tensor", value) if type(value).__name__ == "Array" else value


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="bytes")  # of Python 2's text, of which arrays are made too
        self._names = numpy_vocabulary()

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._names:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return self._names[f"{module}.{name}"]


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of numpy arrays, numbers, text, lists and dictionaries; of Python 2 and 3, any protocol.

    Raises:
        pickle.UnpicklingError: If the file names anything else. Nothing that it names is looked up or run.
    """
    with path.open("rb") as file:
        return plain(_PlainUnpickler(file).load())
