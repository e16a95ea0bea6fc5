"""Image files to pixels by the fastest library at hand that is being kept up: TorchCodec, else Pillow."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def decode_image(data: bytes) -> Tensor:
    """Decode a JPEG, PNG or WebP file, turned upright by its EXIF orientation.

    Grey, palette and CMYK files become RGB, transparency is dropped, 16-bit values lose their low byte. TorchCodec from
    0.16 on (which took over torchvision's decoders, deprecated there) and Pillow give the same pixels; the former is
    more than twice as fast.

    Args:
        data: The file's content.

    Shape:
        - Output: ``(3, H, W)`` uint8

    Raises:
        ValueError: If it does not decode, or is cut short.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        return _fastest()(data)
    except (RuntimeError, ValueError, OSError, SyntaxError) as error:  # Pillow calls a broken PNG a syntax error
        raise ValueError(_reason(error)) from error


def decode_with_pillow(data: bytes) -> Tensor:
    """Decode by Pillow; see :func:`decode_image`."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):
        values = torch.from_numpy((np.asarray(image).astype(np.int32) >> 8).astype(np.uint8))
        return values.expand(3, -1, -1).contiguous()
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def encode_jpeg(image: Tensor, quality: int = 95) -> bytes:
    """Encode an image ``(3, H, W)`` uint8 as JPEG."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(data, "JPEG", quality=quality)
    return data.getvalue()


@lru_cache(maxsize=1)
def _fastest() -> Callable[[bytes], Tensor]:
    try:
        from torchcodec.decoders import decode_image as by_torchcodec
    except (ImportError, OSError, RuntimeError):  # not there, older than its image decoders, or built for another torch
        return decode_with_pillow

    def decode(data: bytes) -> Tensor:
        image: Tensor = by_torchcodec(data, mode="RGB")
        return image if image.ndim == 3 else image[0]  # an animation's first frame

    return decode


def _reason(error: Exception) -> str:
    """The library's first line, without the place in its source or memory."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^.*\.cpp:\d+, ", "", line)
    return re.sub(r" <_io.BytesIO.*>", "", line).rstrip(".")
