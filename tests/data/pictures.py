"""Images for the data tests."""

import torch

from nl3d.data.frames.images import encode_jpeg


def picture(colour, size=(16, 8)):
    """One colour all over, which JPEG keeps to about one value."""
    return torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, *size).contiguous()


def write_jpeg(path, colour=(90, 120, 60), size=(16, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(picture(colour, size)))
