"""Clips of many open tracklets whose frames arrive once and in order."""

from __future__ import annotations

import torch
from torch import Tensor

from nl3d.data.clips.sampling import check_clip_plan


class ClipCollector:
    """Collects the frames of many open tracklets into clips, as :func:`consecutive_clips` cuts them.

    It is for frames that arrive once and in order, such as a video's. It holds less than one clip per open tracklet,
    whatever the length of the video.

    Args:
        num_frames: Frames per clip.
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
        """Count one more frame of a tracklet, and return whether a clip takes it."""
        place = self._seen.get(tracklet, 0)
        self._seen[tracklet] = place + 1
        return place % self.frame_step == 0

    def add(self, tracklet: int, image: Tensor) -> Tensor | None:
        """Add a frame ``(3, H, W)``; return the clip ``(num_frames, 3, H, W)`` once it is full."""
        waiting = self._waiting.setdefault(tracklet, [])
        waiting.append(image)
        return self._clip(tracklet) if len(waiting) == self.num_frames else None

    def close(self, tracklet: int) -> Tensor | None:
        """End a tracklet; return the frames that are left as one looped clip, or None if there are none."""
        self._seen.pop(tracklet, None)
        return self._clip(tracklet) if self._waiting.get(tracklet) else None

    def _clip(self, tracklet: int) -> Tensor:
        images = self._waiting.pop(tracklet)
        return torch.stack([images[place % len(images)] for place in range(self.num_frames)])
