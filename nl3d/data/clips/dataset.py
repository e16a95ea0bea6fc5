"""Tracklets as a torch data set of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nl3d.data.clips.samplers import Draw
from nl3d.data.clips.sampling import Strategy, check_strategy, generator_from, sample_clips
from nl3d.data.clips.transforms import ClipTransform
from nl3d.data.frames.images import resize_image
from nl3d.data.tracklets import Tracklet


class ClipSample(NamedTuple):
    """One clip; a ``DataLoader`` makes it a batch, each entry with a batch axis in front."""

    clip: Tensor  # (3, T, H, W)
    pid: int
    camid: int
    tracklet: int  # place in the list of tracklets
    unreadable: int  # frames that had to be replaced


class ClipDataset(Dataset[ClipSample]):
    """Clips of tracklets, decoded and transformed when asked for.

    With ``strategy="dense"`` its items are all clips of all tracklets, one tracklet after another; the mean over the
    items of one ``tracklet`` is that tracklet's embedding. Else there is one item a tracklet.

    In training, a :class:`Draw` of :class:`PKSampler` decides what is random in an item: the same draw is the same clip
    in any process and any run. With a plain index the item draws from torch's own generator, which a ``DataLoader``
    seeds differently in each worker and epoch.

    Args:
        tracklets: The tracklets.
        num_frames: Frames of a clip.
        strategy: Which frames to take; see :func:`sample_clips`.
        frame_step: Frames from one frame of a clip to the next, for the strategies that have it.
        transform: What to do with the frames; to resize and normalise for 256x128 if left out.
        training: Whether the choice of frames is random, like the transform's draws.
        seed: Another seed is other draws.
        skip_unreadable: Whether a frame that does not decode is replaced by the next one that does, and counted in the
            sample, rather than an error that names it.

    Raises:
        ValueError: If there are no tracklets, or the numbers do not make a clip.

    Example:
        >>> tracklets = [Tracklet(torch.zeros(20, 3, 64, 32, dtype=torch.uint8), pid=7, camid=1)]
        >>> clips = ClipDataset(tracklets, strategy="dense")
        >>> len(clips), clips[2].clip.shape, clips[2].pid
        (3, torch.Size([3, 8, 256, 128]), 7)
    """

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        *,
        num_frames: int = 8,
        strategy: Strategy = "stride",
        frame_step: int | None = None,
        transform: Callable[[Tensor, torch.Generator | None], Tensor] | None = None,
        training: bool = False,
        seed: int = 0,
        skip_unreadable: bool = False,
    ) -> None:
        check_strategy(strategy, num_frames, frame_step)
        if len(tracklets) == 0:
            raise ValueError("tracklets must be at least one, got none")
        self.tracklets = tracklets
        self.num_frames, self.strategy, self.frame_step = num_frames, strategy, frame_step
        self.transform = ClipTransform(training=training) if transform is None else transform
        self.training, self.seed, self.skip_unreadable = training, seed, skip_unreadable
        span = num_frames * (frame_step or 1)
        per_tracklet = [-(-len(tracklet) // span) if strategy == "dense" else 1 for tracklet in tracklets]
        self._owner = torch.repeat_interleave(torch.tensor(per_tracklet))
        self._first = torch.cumsum(torch.tensor([0, *per_tracklet]), 0)

    def __len__(self) -> int:
        return len(self._owner)

    def __getitem__(self, index: int) -> ClipSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}, got {index}")
        place = int(self._owner[index])
        tracklet = self.tracklets[place]
        generator = None
        if self.training:
            number = index.number if isinstance(index, Draw) else int(torch.randint(2**62, ()))
            generator = generator_from(self.seed, number)
        clips = sample_clips(
            len(tracklet), self.num_frames, self.strategy, frame_step=self.frame_step, generator=generator
        )
        number = index % len(self) - int(self._first[place])
        images, unreadable = self._read(tracklet, clips[number])
        return ClipSample(
            self.transform(_stack(images), generator),
            -1 if tracklet.pid is None else tracklet.pid,
            -1 if tracklet.camid is None else tracklet.camid,
            place,
            unreadable,
        )

    def _read(self, tracklet: Tracklet, places: list[int]) -> tuple[list[Tensor], int]:
        """Decode frames, each once, and give them in their order with the number of those that had to be replaced."""
        if not self.skip_unreadable:
            distinct = list(dict.fromkeys(places))
            images = dict(zip(distinct, tracklet.read_all(distinct), strict=True))
            return [images[place] for place in places], 0
        decoded: dict[int, Tensor] = {}
        unreadable: dict[int, Exception] = {}

        def decode(place: int) -> bool:
            if place not in decoded and place not in unreadable:
                try:
                    decoded[place] = tracklet.read(place)
                except (OSError, ValueError) as error:
                    unreadable[place] = error
            return place in decoded

        readable = [place for place in places if decode(place)]
        if len(readable) < len(places):
            lost = len(set(places) & unreadable.keys())
            if not readable:  # then any frame of the tracklet, the nearest first
                others = sorted(range(len(tracklet)), key=lambda place: abs(place - places[0]))
                readable = [place for place in others if decode(place)][:1]
            if not readable:
                reason = next(iter(unreadable.values()))
                raise ValueError(f"tracklet {tracklet.name!r} must have a readable frame, got none: {reason}")
            stand_in = [place if place in decoded else _next_to(place, readable) for place in places]
            return [decoded[place] for place in stand_in], lost
        return [decoded[place] for place in places], 0


def _next_to(place: int, readable: list[int]) -> int:
    return min(readable, key=lambda other: (abs(other - place), other))


def _stack(images: list[Tensor]) -> Tensor:
    """Stack frames; where a tracker's boxes differ in size, all take that of the largest."""
    if len({image.shape for image in images}) > 1:
        size = max(image.shape[1] for image in images), max(image.shape[2] for image in images)
        images = [resize_image(image, size) for image in images]
    # pixel after pixel in memory, as decoders give images and the resizing kernel wants them
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
