"""Pickles of tensors, arrays and plain data, read without running code, in memory bounded by the file.

Used for checkpoints and for embeddings. Three formats: the zip and the older stream of ``torch.save``, and plain
pickles of NumPy arrays (Caffe2). No name outside of a short list is looked up, no memo entry and no storage is larger
than what the file holds.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

ALLOWANCE = 256 * 2**20  # bytes that a small file may grow by in memory
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch.save wrote first before zip files
_TORCH_NAMES = re.compile(
    r"torch\._utils\._rebuild_(?:tensor|tensor_v2|parameter)|torch\.(?:\w*Storage|Size|device|[bcuif]\w*\d+)"
    r"|torch\.(?:float|double|half|bool|int|long|short)|torch\.(?:serialization\._get_layout|storage\.\w+Storage)"
)
_BROKEN = (  # what the readers raise for damaged files
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, MemoryError, struct.error, UnicodeError, RecursionError, zipfile.BadZipFile, NotImplementedError,
    AssertionError, ImportError, OSError,
)  # fmt: skip

# First bytes of files that are often taken for weights or embeddings, what they are, and the remedy.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file, as Keras writes; PyTorch weights end in .pth, .pt or .safetensors"),
    (b"\x93NUMPY", "a NumPy array; a checkpoint holds a name for each tensor"),
    (b"GGUF", "a GGUF file of a language model; PyTorch weights end in .pth, .pt or .safetensors"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF document"),
)


def recognise(path: Path) -> str | None:
    """Name what a file is, and the remedy, if its first bytes show that it holds neither weights nor embeddings."""
    with path.open("rb") as file:
        head = file.read(512)
    if _is_safetensors(head, path):
        return None
    if not head:
        return "empty, 0 bytes; download or write it again"
    for start, what in _OTHERS:
        if head.startswith(start):
            return what
    if head[:1] == b"\x08" and head[2:3] == b"\x12":  # a version, then a name: both projects' protocol buffers
        what = "a TensorFlow model; its weights" if head[1] == 1 else "an ONNX model; its weights"
        return f"{what} have other names: use the PyTorch checkpoint"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page, not the file itself; open its address in a browser and download the file that it offers"
    if text.startswith((b'{"', b"{ ", b"{\n", b"{\r", b"[")) or b"not found" in text[:64]:
        return "text, such as the error message of a server or a configuration; download the weights again"
    if head[257:262] == b"ustar":
        return "a tar archive, as torch.save wrote before version 0.2; load it there and save its state_dict() again"
    if not is_pickled(path) and text.isascii() and all(byte >= 32 or byte in b"\t\n\r" for byte in text):
        return "text, not tensors; download or write it again"
    if not any(head):
        return "zeros only, the start of a download that did not finish; download it again"
    return None


def is_pickled(path: Path) -> bool:
    """Whether a file begins like a zip, a stream of ``torch.save`` or a plain pickle, and not like safetensors."""
    with path.open("rb") as file:
        head = file.read(16)
    starts = head[:4] == b"PK\x03\x04" or head[:1] in (b"\x80", b"(", b"}", b"c", b"]")
    return starts and not _is_safetensors(head, path)


def _is_safetensors(head: bytes, path: Path) -> bool:
    """Whether a header of JSON follows its length, which may have any first byte."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def load_pickled(path: Path) -> Any:
    """Read what ``torch.save`` or ``pickle`` wrote: tensors, arrays (as tensors), numbers, text, lists, dictionaries.

    ``argparse.Namespace`` beside the weights is read as what it is. Dictionaries keep the order of their keys, and the
    attribute ``_metadata`` of a state dict.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is cut off, damaged, names code, or would take far more memory than it has bytes. The
            message is a reason without the file's name, for the caller to complete.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            size = path.stat().st_size
            if head[:4] == b"PK\x03\x04":
                _check_zip(path, size)
                content = _load_torch(path)
            elif head[2:14] == _LEGACY_MAGIC:
                file.seek(0)
                for _ in range(4):  # magic number, protocol, system, content
                    _check_opcodes(file, size)
                content = _load_torch(path)
            else:
                file.seek(0)
                content = _PlainUnpickler(file).load()
        content = _plain(content, {})
        _check_memory(content, size)
    except _BROKEN as error:
        raise ValueError(_reason(error)) from None
    return content


def _load_torch(path: Path) -> Any:
    names: list[Any] = [(value, name) for name, value in _vocabulary().items() if not name.startswith("collections.")]
    with torch.serialization.safe_globals(names), path.open("rb") as file:  # of a path torch.load looks at the suffix
        return torch.load(file, map_location="cpu", weights_only=True)


def _reason(error: BaseException) -> str:
    """The first line of an error, without PyTorch's advice to load files without restrictions."""
    text = str(error).strip()
    if isinstance(error, zipfile.BadZipFile):
        return "it is cut off; download or write it again"
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return f"GLOBAL {named[1]}"
    if "eights only load failed" in text:
        return "it holds something else than tensors, numbers and text"
    return text.split("\n")[0] or type(error).__name__


def _check_zip(path: Path, size: int) -> None:
    """Refuse archives that torch.save did not write, and those that grow when unpacked."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
            raise ValueError("it is a TorchScript archive; load it with torch.jit.load and save its state_dict()")
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if not pickles and all(name.endswith(".npy") for name in names):
            raise ValueError("it is NumPy's .npz; save a dictionary of tensors with torch.save instead")
        if not pickles and any(name.endswith(".h5") for name in names):
            raise ValueError("it is a Keras model; use the PyTorch checkpoint of that network")
        if not pickles:
            raise ValueError(f"it is a zip archive of {', '.join(map(repr, names[:3])) or 'nothing'}; unpack it first")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, which torch.save never does; write it again with torch.save")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its entries are larger than the file")
        with archive.open(pickles[0]) as stream:
            _check_opcodes(stream, size)


def _check_opcodes(stream: IO[bytes], size: int) -> None:
    """Walk one pickle of ``torch.save`` without building anything.

    Raises:
        ValueError: If it is cut off, names what is not on the list, or asks for memory that its file cannot fill.
    """
    known = _vocabulary()
    numbers: list[int] = []
    count = 0
    for opcode, argument, _ in pickletools.genops(stream):
        count += 1
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if int(argument or 0) > count:
                raise ValueError("its memo has entries that were never made")
        elif opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            name = str(argument).replace(" ", ".", 1)  # torch.save never names anything from the stack
            if name not in known and not _TORCH_NAMES.fullmatch(name):
                raise pickle.UnpicklingError(f"GLOBAL {name}")
        elif opcode.name == "MARK":
            numbers.clear()
        elif opcode.name in ("BINPERSID", "PERSID") and numbers and max(numbers) > size:
            raise ValueError("a storage is larger than the file")
        elif isinstance(argument, int):
            numbers.append(argument)


def _check_memory(content: Any, size: int) -> None:
    """Refuse tensors that repeat their values far beyond the file's size, or storages that the file cannot fill."""
    storages: dict[int, int] = {}
    total = 0
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
            if value.device.type == "cpu" and value.layout == torch.strided:
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    if sum(storages.values()) > 2 * size + 2**20 or total > 2 * size + ALLOWANCE:
        raise ValueError(f"its tensors would take {max(total, *storages.values(), 0):,} bytes, far more than the file")


_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _vocabulary() -> dict[str, Any]:
    """Everything a plain pickle may name, under the names that NumPy's pickles of all versions use.

    None of NumPy's own functions is among them: their stand-ins take numbers only, and return tensors and numbers. The
    dictionary is built anew for each file, so no file can change what the next one meets.
    """

    class Number:
        """Stand-in for ``numpy.dtype``."""

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
        """Stand-in for ``numpy.ndarray``: empty at first, then filled by its state."""

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
        "argparse.Namespace": Namespace,  # holds options, runs nothing
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = reconstruct
        names[f"{core}.multiarray.scalar"] = scalar
        names[f"{core}.numeric._frombuffer"] = from_buffer
    return names


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Put tensors in the place of arrays, and text in the place of Python 2's; what is shared stays shared."""
    if isinstance(value, bytes):
        return _text(value)
    if type(value).__name__ == "Array":
        return getattr(value, "tensor", value)
    if not isinstance(value, (dict, list, tuple)) or (not isinstance(value, dict) and type(value) not in (list, tuple)):
        return value
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, dict):
        rebuilt: Any = OrderedDict() if hasattr(value, "_metadata") else {}
        seen[id(value)] = rebuilt
        for key, entry in value.items():
            rebuilt[_text(key) if isinstance(key, bytes) else key] = _plain(entry, seen)
        if hasattr(value, "_metadata"):
            rebuilt._metadata = value._metadata
        return rebuilt
    seen[id(value)] = value  # a list that holds itself
    seen[id(value)] = type(value)(_plain(entry, seen) for entry in value)
    return seen[id(value)]


class _PlainUnpickler(pickle._Unpickler):  # the one in C makes its memo as long as a file says
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="bytes")  # of Python 2's text, of which arrays are made too
        self._names = _vocabulary()

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._names:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return self._names[f"{module}.{name}"]
