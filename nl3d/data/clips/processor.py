"""From frames of one person to the clips that a network takes: resized once, normalised once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nl3d.data.clips.sampling import check_clip_plan, consecutive_clips
from nl3d.data.tracklets import Frame, Tracklet, to_image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ChannelOrder: TypeAlias = Literal["rgb", "bgr"]
"""Order of the colours in arrays and tensors: RGB as in Pillow and torchvision, or BGR as in OpenCV."""

Frames: TypeAlias = "Tracklet | Frame | Sequence[Frame] | Iterable[Frame] | Tensor | np.ndarray[Any, Any]"
"""Frames of one person: a tracklet, one frame, several, or all as one uint8 array ``(T, H, W, 3)`` or tensor."""


@dataclass(frozen=True)
class ClipProcessor:
    """How one network wants its clips. Frames are RGB.

    Each network of nl3d has its own as ``network.processor``; for any other, :meth:`of` reads ``pretrained_cfg``. What
    comes out is what :func:`nl3d.embed` and training's evaluation feed to the network.

    Args:
        num_frames: Frames per clip.
        frame_step: Frames from one frame of a clip to the next.
        size: Height and width of a frame, in pixels.
        mean: Mean of R, G and B, on a scale from 0 to 1.
        std: Standard deviation of R, G and B, on the same scale.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> processor = ClipProcessor(num_frames=4, size=(64, 32))
        >>> frames = torch.randint(256, (10, 3, 90, 40), dtype=torch.uint8)
        >>> processor(frames[:4]).shape, processor.clips(frames).shape
        (torch.Size([3, 4, 64, 32]), torch.Size([3, 3, 4, 64, 32]))
    """

    num_frames: int = 8
    frame_step: int = 1
    size: tuple[int, int] = (256, 128)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        check_clip_plan(self.num_frames, self.frame_step)
        object.__setattr__(self, "size", tuple(self.size))
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size must be (height, width), each at least 1, got {self.size}")
        for name in ("mean", "std"):
            values = tuple(map(float, getattr(self, name)))
            if len(values) != 3 or (name == "std" and min(values) <= 0):
                raise ValueError(f"{name} must be three numbers, one per colour, got {getattr(self, name)}")
            object.__setattr__(self, name, values)

    @classmethod
    def of(
        cls,
        network: nn.Module | Mapping[str, Any],
        *,
        num_frames: int | None = None,
        frame_step: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> ClipProcessor:
        """Read ``pretrained_cfg``: ``mean``, ``std``, ``input_size``, ``num_frames`` and ``frame_step``.

        Where mean, deviation or size are neither there nor given, a warning names the default that is used.

        Args:
            network: A network, or its ``pretrained_cfg``.
            num_frames: Frames per clip; the network's own if left out.
            frame_step: Frames from one frame of a clip to the next; the network's own if left out.
            size: Height and width of a frame, in pixels; the network's own if left out.

        Raises:
            ValueError: If a value is out of range.
        """
        config = network if isinstance(network, Mapping) else getattr(network, "pretrained_cfg", None) or {}
        given: dict[str, Any] = {"num_frames": num_frames, "frame_step": frame_step, "size": size}
        own = {"size": tuple(config.get("input_size") or ())[-2:], **{name: config.get(name) for name in _READ}}
        values: dict[str, Any] = {name: value for name, value in own.items() if value}
        values |= {name: value for name, value in given.items() if value is not None}
        processor = cls(**values)
        assumed = [f"{name}={getattr(processor, name)}" for name in ("size", "mean", "std") if name not in values]
        if assumed:
            who = "pretrained_cfg" if isinstance(network, Mapping) else f"pretrained_cfg of {type(network).__name__}"
            warnings.warn(
                f"{who} must say how frames are prepared, but lacks some of it; taking {', '.join(assumed)}, in clips "
                f"of {processor.num_frames} frames with step {processor.frame_step}",
                stacklevel=3,
            )
        return processor

    def __call__(self, frames: Frames, *, order: ChannelOrder = "rgb") -> Tensor:
        """Make one clip of all the frames given.

        Args:
            frames: Image files, PIL images, uint8 arrays ``(H, W, 3)``, uint8 tensors ``(3, H, W)``, or several of
                these, whose sizes may differ; or a tracklet.
            order: Order of the colours in arrays and tensors: ``"rgb"``, or ``"bgr"`` for frames from OpenCV.

        Shape:
            - Output: ``(3, T, H, W)`` float32, T the number of frames; a network takes ``(B, 3, T, H, W)``

        Raises:
            TypeError: If a frame is none, or its values are not uint8.
            ValueError: If there is no frame, one has another shape, or ``order`` does not fit.
        """
        return self.normalise(self.resize(to_images(frames, order)).transpose(0, 1))

    def clips(self, frames: Frames, *, order: ChannelOrder = "rgb") -> Tensor:
        """Cut a tracklet into consecutive clips, as :func:`nl3d.data.clips.sampling.consecutive_clips` does.

        The mean over the clips of the network's embeddings is what :func:`nl3d.embed` gives for the tracklet.

        Args:
            frames: As for :meth:`__call__`.
            order: As for :meth:`__call__`.

        Shape:
            - Output: ``(N, 3, num_frames, H, W)`` float32
        """
        images = self.resize(to_images(frames, order))
        places = consecutive_clips(len(images), self.num_frames, self.frame_step)
        return self.normalise(images[torch.tensor(places)].transpose(1, 2))

    def resize(self, images: Sequence[Tensor]) -> Tensor:
        """Resize images ``(3, H, W)`` uint8 to ``(T, 3, *size)`` uint8; see :func:`resize_images`."""
        return resize_images(images, self.size)

    def normalise(self, clips: Tensor) -> Tensor:
        """Turn uint8 clips ``(..., 3, T, H, W)`` into float32, less the mean and divided by the deviation."""
        return normalise_clips(clips, self.mean, self.std)


_READ = ("num_frames", "frame_step", "mean", "std")  # keys of pretrained_cfg that bear the processor's names


def check_order(order: str) -> None:
    """Refuse an order of colours that does not exist.

    Raises:
        ValueError: If it is neither ``"rgb"`` nor ``"bgr"``.
    """
    if order not in ("rgb", "bgr"):
        raise ValueError(f"order must be 'rgb' or 'bgr', got {order!r}")


def to_images(frames: Frames, order: ChannelOrder = "rgb") -> list[Tensor]:
    """Decode frames of one person to RGB images ``(3, H, W)`` uint8; see :meth:`ClipProcessor.__call__`."""
    check_order(order)
    if isinstance(frames, Tracklet):
        frames = frames.frames
    if isinstance(frames, Tensor | np.ndarray):
        several: list[Any] = list(frames) if frames.ndim == 4 else [frames]
    else:
        several = list(frames) if isinstance(frames, Iterable) and not isinstance(frames, str) else [frames]
    if not several:
        raise ValueError("frames must be at least one, got none")
    images = [to_image(frame) for frame in several]
    if order == "bgr":
        known = next((frame for frame in several if not isinstance(frame, Tensor | np.ndarray)), None)
        if known is not None:
            raise ValueError(
                f"order must be 'rgb' for frames that know their own, got 'bgr' with {type(known).__name__}; it is "
                "for arrays and tensors alone"
            )
        images = [image.flip(0) for image in images]
    return images


def resize_images(images: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize by antialiased bilinear interpolation, without leaving uint8.

    Args:
        images: The images, whose sizes may differ.
        size: Height and width to give them, in pixels.

    Shape:
        - Input: each ``(3, H, W)`` uint8
        - Output: ``(len(images), 3, *size)`` uint8
    """
    if len({image.shape for image in images}) > 1:
        return torch.cat([resize_images([image], size) for image in images])
    # Pixel after pixel in memory, as decoders give images: the kernel for that is about twice as fast.
    batch = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    if tuple(batch.shape[-2:]) != tuple(size):
        batch = functional.interpolate(batch, size, mode="bilinear", antialias=True)
    return batch


def normalise_clips(
    clips: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Turn uint8 clips into what a network takes, on whatever device they are.

    Args:
        clips: RGB clips, channels before frames.
        mean: Mean of R, G and B, on a scale from 0 to 1.
        std: Standard deviation of R, G and B, on the same scale.

    Shape:
        - Input: ``(..., 3, T, H, W)`` uint8
        - Output: the same, float32

    Example:
        >>> white = torch.full((3, 1, 1, 1), 255, dtype=torch.uint8)
        >>> normalise_clips(white, mean=(0.5,) * 3, std=(0.25,) * 3).flatten()
        tensor([2., 2., 2.])
    """
    table = torch.tensor([[1 / (255 * d) for d in std], [m / d for m, d in zip(mean, std, strict=True)]])
    scale, shift = table.to(clips.device, non_blocking=True).view(2, 3, 1, 1, 1)
    return clips.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).sub_(shift)
