"""Clips of tracklets: decoding their frames, a torch data set of them, and one-sentence errors of its workers."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nl3d.data.clips.samplers import Draw
from nl3d.data.clips.sampling import Strategy, check_strategy, count_clips, generator_from, sample_clips
from nl3d.data.clips.transforms import ClipTransform
from nl3d.data.tracklets import Tracklet


class ClipSample(NamedTuple):
    """One clip; a ``DataLoader`` collates samples, so that each entry gets a batch axis."""

    clip: Tensor  # (3, T, H, W)
    pid: int
    camid: int
    tracklet: int  # place in the list of tracklets
    unreadable: int  # frames that had to be replaced


class ClipDataset(Dataset[ClipSample]):
    """Clips of tracklets, decoded and transformed on request.

    With ``strategy="dense"`` its items are all clips of all tracklets, one tracklet after another; otherwise there is
    one item per tracklet.

    In training, a :class:`Draw` of :class:`PKSampler` decides what is random in an item: the same draw is the same clip
    in any process and any run. With a plain index the item draws from torch's own generator, which a ``DataLoader``
    seeds differently in each worker and epoch.

    Args:
        tracklets: The tracklets.
        num_frames: Frames per clip.
        strategy: Which frames to take; see :func:`sample_clips`.
        frame_step: Frames from one frame of a clip to the next, for ``"stride"`` and ``"dense"``.
        transform: Called with the frames, images ``(3, H, W)`` whose sizes may differ, and a generator or ``None``;
            a :class:`ClipTransform` for 256x128 if left out.
        training: Whether the choice of frames is random, like the transform's draws.
        seed: Seed of all draws.
        skip_unreadable: Whether a frame that does not decode is replaced by the nearest one that does, and counted in
            the sample, rather than an error that names it.

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
        transform: Callable[[Sequence[Tensor], torch.Generator | None], Tensor] | None = None,
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
        plan = num_frames, frame_step or 1
        per_tracklet = [count_clips(len(tracklet), *plan) if strategy == "dense" else 1 for tracklet in tracklets]
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
        places = clips[number]
        images, errors = read_clip(tracklet, places, skip_unreadable=self.skip_unreadable)
        lost = len(errors)
        if not images:  # then any frame of the tracklet, the nearest first
            for other in sorted(range(len(tracklet)), key=lambda other: abs(other - places[0])):
                images, errors = read_clip(tracklet, [other] * len(places), skip_unreadable=True)
                if images:
                    break
            else:
                raise ValueError(f"tracklet {tracklet.name!r} must have a readable frame, got none: {errors[0]}")
        return ClipSample(
            self.transform(images, generator),
            -1 if tracklet.pid is None else tracklet.pid,
            -1 if tracklet.camid is None else tracklet.camid,
            place,
            lost,
        )


def read_clip(
    tracklet: Tracklet, places: Sequence[int], *, skip_unreadable: bool = False
) -> tuple[list[Tensor], list[str]]:
    """Decode the frames of a clip, each once.

    Args:
        tracklet: The tracklet.
        places: Its frames to take; one may occur several times.
        skip_unreadable: Whether a frame that does not decode is replaced by the nearest one of the clip that does.

    Returns:
        The frames, ``(3, H, W)`` uint8 each, none if none decodes; and the error of each that does not.
    """
    distinct = list(dict.fromkeys(places))
    images: dict[int, Tensor] = {}
    errors: list[str] = []
    try:
        images = dict(zip(distinct, tracklet.read_all(distinct), strict=True))
    except (OSError, ValueError):
        if not skip_unreadable:
            raise
        for place in distinct:
            try:
                images[place] = tracklet.read(place)
            except (OSError, ValueError) as error:
                errors.append(str(error))
    if not images:
        return [], errors
    return [images[place if place in images else _nearest(place, images)] for place in places], errors


def _nearest(place: int, others: Iterable[int]) -> int:
    return min(others, key=lambda other: (abs(other - place), other))


@contextmanager
def forking_workers() -> Iterator[None]:
    """Start workers with the objects of this process frozen, so that they do not collect them as garbage.

    A worker that collected a video's frame would wait forever for threads of FFmpeg that only this process has.
    """
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise an error of a ``DataLoader``'s worker as the worker raised it, without the traceback in its text."""
    try:
        yield
    except Exception as error:
        first, _, traceback = str(error).partition("\n")
        if first.startswith("DataLoader worker"):
            raise ChildProcessError(
                f"a worker that decodes frames was killed ({first}); decode with fewer workers or in smaller batches"
            ) from error
        _, found, message = traceback.rstrip().rpartition(f"\n{type(error).__name__}: ")
        if not first.startswith("Caught ") or not found:
            raise
        plain: Any = type(error)
        raise plain(message) from error
