"""From the frames of a clip to what a network takes, with one random draw for the whole clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ClipTransform:
    """Resize and, for training, crop, flip and erase a clip, all its frames alike; then normalise it.

    Everything before normalising happens on uint8 videos by torchvision's own transforms. With ``normalise=False`` the
    clip stays uint8: a quarter of the bytes between processes and to the GPU, where :func:`normalise_clips` ends the
    work.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 4.2 ("randomly cropped from a scaled videos whose size is randomly
    enlarged by 1/8"). Flip and erasing are not in the paper; erasing after Zhong et al. 2017, arXiv:1708.04896.

    Args:
        size: Height and width of the result, pixels.
        training: Whether to draw at random; else frames are only resized.
        enlarge: Factor on the size that crops are taken from.
        enlarge_probability: How often that happens; clips that are not enlarged are not cropped.
        flip_probability: How often a clip is mirrored.
        erase_probability: How often a rectangle of a clip is replaced by the mean colour.
        mean: Of RGB in [0, 1].
        std: Of RGB in [0, 1].
        normalise: Whether the result is float32, less the mean and divided by the deviation, or uint8.

    Shape:
        - Input: ``(T, 3, H, W)`` uint8
        - Output: ``(3, T, *size)``

    Raises:
        ValueError: If a probability is not in [0, 1], or ``enlarge`` is below 1.

    Example:
        >>> transform = ClipTransform((256, 128), training=True)
        >>> frames = torch.randint(256, (8, 3, 128, 48), dtype=torch.uint8)
        >>> transform(frames, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3, 8, 256, 128])
    """

    def __init__(
        self,
        size: tuple[int, int] = (256, 128),
        *,
        training: bool = False,
        enlarge: float = 1.125,
        enlarge_probability: float = 1.0,
        flip_probability: float = 0.5,
        erase_probability: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        normalise: bool = True,
    ) -> None:
        for name, value in (
            ("enlarge_probability", enlarge_probability),
            ("flip_probability", flip_probability),
            ("erase_probability", erase_probability),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
        if enlarge < 1:
            raise ValueError(f"enlarge must be at least 1, got {enlarge}")
        self.size = height, width = size
        self.training = training
        self.mean, self.std, self.normalise = tuple(mean), tuple(std), normalise
        self._resize = v2.Resize([height, width], antialias=True)
        large = v2.Compose([
            v2.Resize([round(height * enlarge), round(width * enlarge)], antialias=True),
            v2.RandomCrop([height, width]),
        ])  # fmt: skip
        colour = [round(255 * value) for value in self.mean]  # nothing, once the mean is taken off
        self._draws = v2.Compose([
            v2.RandomChoice([large, self._resize], p=[enlarge_probability, 1 - enlarge_probability]),
            v2.RandomHorizontalFlip(flip_probability),
            v2.RandomErasing(erase_probability, scale=(0.02, 0.4), ratio=(0.3, 3.3), value=colour),
        ])  # fmt: skip

    def __call__(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Transform one clip.

        Args:
            frames: The clip.
            generator: What to draw from; torch's own one if left out.

        Raises:
            TypeError: If ``frames`` is not a uint8 tensor.
            ValueError: If it has another shape than ``(T, 3, H, W)``.
        """
        if not isinstance(frames, Tensor) or frames.dtype != torch.uint8:
            raise TypeError(f"frames must be a uint8 tensor, got {getattr(frames, 'dtype', type(frames).__name__)}")
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames must be (T, 3, H, W), got {tuple(frames.shape)}")
        # channels last is what the resizing kernel is fast on
        video = tv_tensors.Video(frames.contiguous(memory_format=torch.channels_last))
        if self.training:
            with _drawing_from(generator):
                video = self._draws(video)
        else:
            video = self._resize(video)
        clip = video.as_subclass(Tensor).transpose(0, 1)  # (3, T, H, W)
        return normalise_clips(clip, self.mean, self.std) if self.normalise else clip.contiguous()


def normalise_clips(
    clips: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Turn uint8 clips into what a network takes, on whatever device they are.

    Args:
        clips: The clips, channels before frames.
        mean: Of RGB in [0, 1].
        std: Of RGB in [0, 1].

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


@contextmanager
def _drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Lend torchvision, which draws from torch's own generator, another one for a while."""
    if generator is None:
        yield
        return
    state = torch.default_generator.get_state()
    seed = int(torch.randint(2**62, (), generator=generator))
    torch.default_generator.manual_seed(seed)  # the CPU's alone; torch.manual_seed would touch GPUs
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
