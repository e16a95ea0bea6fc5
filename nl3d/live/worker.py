"""The thread in which the network of a live embedder runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Condition, Thread

import torch
from torch import Tensor

from nl3d.embedding.embedder import TrackletEmbedder
from nl3d.live.clip_queue import ClipQueue, QueuedClip
from nl3d.live.tracks import LiveCounts, LiveTrack, Match, OpenTrack


class NetworkThread:
    """Computes queued clips, and keeps the mean and the match of their tracks.

    Args:
        embedder: The network, in evaluation mode from now on until :meth:`close`.
        matcher: Returns the match of each vector ``(N, D)``; None for no matches.
        counts: Counts of clips, kept here.
        queue_size: Clips that wait, at most.
    """

    def __init__(
        self,
        embedder: TrackletEmbedder,
        matcher: Callable[[Tensor], list[Match | None]] | None,
        counts: LiveCounts,
        queue_size: int,
    ) -> None:
        self.changed = Condition()  # guards the results of tracks, the counts of clips, and the following
        self.error: BaseException | None = None
        self._embedder, self._matcher, self._counts = embedder, matcher, counts
        self._queue: ClipQueue[OpenTrack] = ClipQueue(queue_size)
        self._matched: dict[int, OpenTrack] = {}
        self._closed: list[LiveTrack] = []
        self._waiting = 0  # clips that wait for the network
        self._mode = embedder.evaluating()
        self._mode.__enter__()
        self._thread: Thread | None = Thread(target=self._run, name="nl3d-live", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether :meth:`close` was not called yet."""
        return self._thread is not None

    def put(self, track: OpenTrack, clip: Tensor, deadline: float | None) -> None:
        """Queue a clip; when the queue is full until the deadline, a clip is skipped."""
        with self.changed:
            track.waiting += 1
            self._waiting += 1
        number, track.queued = track.queued, track.queued + 1
        start = time.perf_counter()
        dropped = self._queue.put(QueuedClip(track, number, clip), deadline)
        self._counts.longest_wait = max(self._counts.longest_wait, time.perf_counter() - start)
        if dropped is not None:
            self._skip(dropped.owner)

    def end(self, track: OpenTrack) -> None:
        """Report a track as closed, once none of its clips waits."""
        with self.changed:
            track.closing = True
            self._finish(track)

    def collect(self, tracks: Sequence[OpenTrack | None]) -> tuple[tuple[LiveTrack | None, ...], ...]:
        """Return the state of some tracks, then those with a new match and those closed since the last call."""
        with self.changed:
            now = tuple(None if track is None else track.snapshot() for track in tracks)
            matched = tuple(track.snapshot() for track in self._matched.values())
            closed, self._closed = tuple(self._closed), []
            self._matched.clear()
        return now, matched, closed

    def close(self, deadline: float | None) -> None:
        """Wait for the clips in the queue, skip those that are left at the deadline, and end the thread."""
        if self._thread is None:
            return
        with self.changed:
            while self._waiting and self.error is None:
                left = None if deadline is None else deadline - time.perf_counter()
                if left is not None and left <= 0:
                    break
                self.changed.wait(left)
        self._queue.close()
        for clip in self._queue.clear():
            self._skip(clip.owner)
        self._thread.join()
        self._thread = None
        self._mode.__exit__(None, None, None)

    def _skip(self, track: OpenTrack) -> None:
        with self.changed:
            track.skipped += 1
            self._counts.skipped_clips += 1
            self._settle(track)

    def _settle(self, track: OpenTrack) -> None:
        """Note that one clip of a track no longer waits."""
        track.waiting -= 1
        self._waiting -= 1
        self._finish(track)
        self.changed.notify_all()

    def _finish(self, track: OpenTrack) -> None:
        if track.closing and not track.waiting:
            self._closed.append(track.snapshot())
            self._matched.pop(track.key, None)
            self._counts.tracks_without_vector += track.mean is None

    def _run(self) -> None:
        try:
            while clips := self._queue.take(self._embedder.batch_size):
                vectors = self._embedder.vectors(torch.stack([clip.images for clip in clips]))
                means: dict[OpenTrack, tuple[Tensor, int]] = {}
                for clip, vector in zip(clips, vectors, strict=True):
                    mean, count = means.get(clip.owner, (clip.owner.mean, clip.owner.clips))
                    mean = torch.zeros(len(vector)) if mean is None else mean
                    means[clip.owner] = (mean + (vector - mean) / (count + 1)).float(), count + 1
                self._store(means, [clip.owner for clip in clips])
        except BaseException as error:  # raised by the next update
            with self.changed:
                self.error = error
                self.changed.notify_all()
            self._queue.close()

    def _store(self, means: dict[OpenTrack, tuple[Tensor, int]], owners: Sequence[OpenTrack]) -> None:
        vectors = torch.stack([mean for mean, _ in means.values()])
        matches: Sequence[Match | None] = [None] * len(means) if self._matcher is None else self._matcher(vectors)
        with self.changed:
            for (track, (mean, count)), match in zip(means.items(), matches, strict=True):
                if match is not None and (track.match is None or match.label != track.match.label):
                    self._matched[track.key] = track
                track.mean, track.clips, track.match = mean, count, match
            self._counts.clips += len(owners)
            for track in owners:
                self._settle(track)
