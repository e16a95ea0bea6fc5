"""A safetensors file whose largest tensor is written a block of rows at a time, so that it need not fit into memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from nl3d.storage.files import replacing

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
    """Write what :func:`nl3d.storage.files.write_safetensors` would, byte for byte, with one tensor in blocks.

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
    whole = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items())), **described}
    header = json.dumps(whole, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)  # as safetensors aligns the tensors
