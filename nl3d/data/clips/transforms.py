"""Augmentation: from the frames of a clip to what a network takes, with one random draw for the whole clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from nl3d.data.clips.processor import IMAGENET_MEAN, IMAGENET_STD, normalise_clips, resize_images


class ClipTransform:
    """Resize a clip once and, for training, crop, flip and erase all its frames alike; then normalise it.

    Everything before normalising happens in uint8. With ``normalise=False`` the clip stays uint8: a quarter of the
    bytes between processes and to the GPU, where :func:`normalise_clips` finishes the work.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 4.2 ("randomly cropped from a scaled videos whose size is randomly
    enlarged by 1/8"). Flip and erasing are not in the paper; erasing after Zhong et al. 2017, arXiv:1708.04896.

    Args:
        size: Height and width of the result, pixels.
        training: Whether to draw at random; else frames are only resized.
        enlarge: Factor on the size that crops are taken from.
        enlarge_probability: Probability of enlarging; clips that are not enlarged are not cropped.
        flip_probability: Probability of mirroring a clip.
        erase_probability: Probability of replacing a rectangle of a clip by the mean colour.
        mean: Mean of R, G and B, on a scale from 0 to 1.
        std: Standard deviation of R, G and B, on the same scale.
        normalise: Whether the result is float32, less the mean and divided by the deviation, or uint8.

    Shape:
        - Input: ``(T, 3, H, W)`` uint8, RGB, or T images ``(3, H, W)`` whose sizes may differ
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
        self._large = round(height * enlarge), round(width * enlarge)
        self._odds = torch.tensor([float(enlarge_probability), 1 - enlarge_probability])
        self._crop = v2.RandomCrop([height, width])
        colour = [round(255 * value) for value in self.mean]  # nothing, once the mean is taken off
        self._draws = v2.Compose([
            v2.RandomHorizontalFlip(flip_probability),
            v2.RandomErasing(erase_probability, scale=(0.02, 0.4), ratio=(0.3, 3.3), value=colour),
        ])  # fmt: skip

    def __call__(self, frames: Tensor | Sequence[Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Transform one clip.

        Args:
            frames: The clip.
            generator: Source of the random draws; torch's own one if left out.

        Raises:
            TypeError: If ``frames`` are not uint8 tensors.
            ValueError: If they have another shape.
        """
        for image in [frames] if isinstance(frames, Tensor) else frames:
            if not isinstance(image, Tensor) or image.dtype != torch.uint8:
                raise TypeError(f"frames must be uint8 tensors, got {getattr(image, 'dtype', type(image).__name__)}")
            if image.ndim != (4 if image is frames else 3) or image.shape[-3] != 3:
                raise ValueError(f"frames must be (T, 3, H, W) or images (3, H, W), got {tuple(image.shape)}")
        images = list(frames)
        if self.training:
            with _drawing_from(generator):
                large = int(torch.multinomial(self._odds, 1)) == 0
                video: Tensor = tv_tensors.Video(resize_images(images, self._large if large else self.size))
                video = self._draws(self._crop(video) if large else video).as_subclass(Tensor)
        else:
            video = resize_images(images, self.size)
        clip = video.transpose(0, 1)  # (3, T, H, W)
        return normalise_clips(clip, self.mean, self.std) if self.normalise else clip.contiguous()


@contextmanager
def _drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Make torchvision, which draws from torch's own generator, draw from another one."""
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
