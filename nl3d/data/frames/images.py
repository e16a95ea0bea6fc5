"""Image files to pixels by the fastest library at hand, TorchCodec or Pillow."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

MAX_PIXELS = 2**25
"""Most pixels of an image or a video's frame, 8192 x 4096; a small file can claim any size and take that memory."""

_FORMATS = ("JPEG", "PNG", "WEBP")


def read_image(path: str | Path) -> Tensor:
    """Read an image file; see :func:`decode_image`.

    Shape:
        - Output: ``(3, H, W)`` uint8
    """
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise FileNotFoundError(f"image {str(path)!r} does not exist") from None
    try:
        return decode_image(data)
    except ValueError as error:
        raise ValueError(f"image {str(path)!r} cannot be read: {error}") from error


def decode_image(data: bytes) -> Tensor:
    """Decode a JPEG, PNG or WebP file, turned upright by its EXIF orientation.

    Grey, palette and CMYK files become RGB, transparency is dropped, 16-bit values lose their low byte. TorchCodec from
    0.16 on and Pillow give the same pixels.

    Shape:
        - Output: ``(3, H, W)`` uint8
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        width, height = Image.open(io.BytesIO(data), formats=_FORMATS).size  # reads the header alone
        if width * height <= MAX_PIXELS:
            return _fastest()(data)
    except Exception as error:  # decoders raise almost anything for a damaged file
        raise ValueError(_reason(error)) from error
    raise ValueError(f"an image must have at most {MAX_PIXELS} pixels, got {width} x {height}")


def decode_with_pillow(data: bytes) -> Tensor:
    """Decode by Pillow; see :func:`decode_image`."""
    return pillow_to_tensor(Image.open(io.BytesIO(data), formats=_FORMATS))


def pillow_to_tensor(opened: Image.Image) -> Tensor:
    """Turn a PIL image into RGB ``(3, H, W)`` uint8, as :func:`decode_image` does with its file."""
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):
        values = torch.from_numpy((np.asarray(image).astype(np.int32) >> 8).astype(np.uint8))
        return values.expand(3, -1, -1).contiguous()
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def encode_jpeg(image: Tensor, quality: int = 95) -> bytes:
    """Encode an image ``(3, H, W)`` uint8 as JPEG."""
    data = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(data, "JPEG", quality=quality)
    return data.getvalue()


@lru_cache(maxsize=1)
def _fastest() -> Callable[[bytes], Tensor]:
    try:
        from torchcodec.decoders import decode_image as by_torchcodec
    except (ImportError, OSError, RuntimeError):  # absent, older than its image decoders, or built for another torch
        return decode_with_pillow

    def decode(data: bytes) -> Tensor:
        image: Tensor = by_torchcodec(data, mode="RGB")
        return image if image.ndim == 3 else image[0]  # an animation's first frame

    return decode


def _reason(error: Exception) -> str:
    """Return the library's first line, without the place in its source or memory."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^.*\.cpp:\d+, ", "", line)
    return re.sub(r" <_io.BytesIO.*>", "", line).rstrip(".")
