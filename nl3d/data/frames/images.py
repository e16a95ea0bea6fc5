"""Image files to uint8 tensors, and uint8 tensors to the size a network takes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from nl3d.data.frames.decode import decode_image
from nl3d.data.frames.names import IMAGE_SUFFIXES, natural_key


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in a folder, hidden ones left out, in natural order of their names."""
    found = [path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    return sorted(found, key=lambda path: natural_key(path.name))


def read_image(path: str | Path) -> Tensor:
    """Decode a JPEG, PNG or WebP file, turned upright by its EXIF orientation.

    Grey, palette and CMYK files become RGB, transparency is dropped, 16-bit values lose their low byte.

    Args:
        path: The file.

    Shape:
        - Output: ``(3, H, W)`` uint8

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not decode, or is cut short.
    """
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise FileNotFoundError(f"image {str(path)!r} does not exist") from None
    try:
        return decode_image(data)
    except ValueError as error:
        raise ValueError(f"image {str(path)!r} cannot be read: {error}") from error


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize by antialiased bilinear interpolation, without leaving uint8.

    Args:
        image: The image.
        size: Height and width to give it, in pixels.

    Shape:
        - Input: ``(3, H, W)`` uint8
        - Output: ``(3, *size)`` uint8
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image.contiguous()
    # The kernel for images whose channels come last is about twice as fast.
    batch = image.unsqueeze(0).contiguous(memory_format=torch.channels_last)
    return functional.interpolate(batch, size, mode="bilinear", antialias=True)[0].contiguous()
