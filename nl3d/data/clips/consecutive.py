"""A tracklet cut into consecutive clips that do not overlap, the paper's way to test (Sec. 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def consecutive_clips(length: int, num_frames: int, frame_step: int = 1) -> list[list[int]]:
    """Frame indices of the clips of a tracklet.

    The tracklet falls into consecutive spans of ``num_frames * frame_step`` frames, and a clip takes every
    ``frame_step``-th frame of its span, spaced as the clips a network was trained on (the paper: eight frames, every
    eighth of 64 consecutive ones). A span cut short by the end of the tracklet starts over at its first frame until the
    clip is full, so that nothing is dropped.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3 ("consecutive nonoverlap tracks") and Sec. 4.2 (the step).

    Args:
        length: Frames of the tracklet.
        num_frames: Frames of a clip.
        frame_step: Frames from one frame of a clip to the next.

    Raises:
        ValueError: If an argument is below 1.

    Example:
        >>> consecutive_clips(10, 4)
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]]
        >>> consecutive_clips(10, 4, frame_step=2)
        [[0, 2, 4, 6], [8, 8, 8, 8]]
    """
    check_clip_plan(num_frames, frame_step)
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    taken = range(0, length, frame_step)
    spans = [taken[start : start + num_frames] for start in range(0, len(taken), num_frames)]
    return [[span[place % len(span)] for place in range(num_frames)] for span in spans]


def check_clip_plan(num_frames: int, frame_step: int) -> None:
    """Refuse clips without frames and steps that go nowhere."""
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if frame_step < 1:
        raise ValueError(f"frame_step must be at least 1, got {frame_step}")


class ClipCollector:
    """Collects the frames of many open tracklets into clips, as :func:`consecutive_clips` cuts them.

    Made for frames that arrive once and in order, such as a video's: it holds less than one clip for each tracklet that
    has begun and not ended, whatever the length of the video.

    Args:
        num_frames: Frames of a clip.
        frame_step: Frames from one frame of a clip to the next.

    Example:
        >>> collector = ClipCollector(num_frames=2)
        >>> image = torch.zeros(3, 8, 4, dtype=torch.uint8)
        >>> collector.takes(0) and collector.add(0, image) is None
        True
        >>> collector.close(0).shape
        torch.Size([2, 3, 8, 4])
    """

    def __init__(self, num_frames: int, frame_step: int = 1) -> None:
        check_clip_plan(num_frames, frame_step)
        self.num_frames = num_frames
        self.frame_step = frame_step
        self._seen: dict[int, int] = {}
        self._waiting: dict[int, list[Tensor]] = {}

    def takes(self, tracklet: int) -> bool:
        """Count one more frame of a tracklet, and say whether a clip takes it; if not, it need not be decoded."""
        place = self._seen.get(tracklet, 0)
        self._seen[tracklet] = place + 1
        return place % self.frame_step == 0

    def add(self, tracklet: int, image: Tensor) -> Tensor | None:
        """Put in a frame ``(3, H, W)``; gives the clip ``(num_frames, 3, H, W)`` once it is full."""
        waiting = self._waiting.setdefault(tracklet, [])
        waiting.append(image)
        return self._clip(tracklet) if len(waiting) == self.num_frames else None

    def close(self, tracklet: int) -> Tensor | None:
        """End a tracklet; gives what was left of it as one looped clip, or None if nothing was."""
        self._seen.pop(tracklet, None)
        return self._clip(tracklet) if self._waiting.get(tracklet) else None

    def _clip(self, tracklet: int) -> Tensor:
        images = self._waiting.pop(tracklet)
        return torch.stack([images[place % len(images)] for place in range(self.num_frames)])
