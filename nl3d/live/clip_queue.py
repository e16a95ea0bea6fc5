"""Bounded queue of clips between the caller of a live embedder and the thread of its network."""

from __future__ import annotations

import time
from threading import Condition
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

Owner = TypeVar("Owner")


class QueuedClip(NamedTuple, Generic[Owner]):
    """Clip that waits for the network.

    Attributes:
        owner: Track that it belongs to.
        number: Its place among the clips of the track, from 0.
        images: ``(T, 3, H, W)`` uint8.
    """

    owner: Owner
    number: int
    images: Tensor


class ClipQueue(Generic[Owner]):
    """First in, first out. When it is full, the clip goes whose track has the most clips already.

    So a network that is too slow costs long tracks some of their clips, before it costs a short one its only vector.

    Args:
        size: Clips that may wait.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"queue_size must be at least 1, got {size}")
        self.size = size
        self.open = True
        self._clips: list[QueuedClip[Owner]] = []
        self._changed = Condition()

    def put(self, clip: QueuedClip[Owner], deadline: float | None) -> QueuedClip[Owner] | None:
        """Add a clip; return the one that had to go for it, which may be itself.

        Args:
            clip: The clip.
            deadline: Time of ``time.perf_counter`` until which to wait for room; None to wait as long as it takes.
        """
        with self._changed:
            while self.open and len(self._clips) >= self.size:
                left = None if deadline is None else deadline - time.perf_counter()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            self._clips.append(clip)
            self._changed.notify_all()
            if self.open and len(self._clips) <= self.size:
                return None
            place = max(range(len(self._clips)), key=lambda place: (self._clips[place].number, place))
            return self._clips.pop(place)

    def take(self, most: int) -> list[QueuedClip[Owner]]:
        """Wait for clips and return the first ones; none once the queue is closed and empty."""
        with self._changed:
            while self.open and not self._clips:
                self._changed.wait()
            taken, self._clips = self._clips[:most], self._clips[most:]
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Take no more clips; those that wait can still be taken."""
        with self._changed:
            self.open = False
            self._changed.notify_all()

    def clear(self) -> list[QueuedClip[Owner]]:
        """Remove and return the clips that wait."""
        with self._changed:
            cleared, self._clips = self._clips, []
            self._changed.notify_all()
            return cleared
