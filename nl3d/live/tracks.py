"""What a live embedder reports: tracks with their embeddings so far, and what happened to boxes and clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nl3d.embedding.embeddings import Embeddings
from nl3d.retrieval.calibration import Decision


class Match(NamedTuple):
    """Nearest tracklet of a gallery.

    Attributes:
        name: Name of the gallery's tracklet.
        person: Label of its person; None if not known.
        distance: Distance to it.
        probability: That it shows the same person; None without a calibration.
        decision: ``"same"``, ``"unsure"`` or ``"different"``, likewise.
    """

    name: str
    person: str | None
    distance: float
    probability: float | None = None
    decision: Decision | None = None

    @property
    def label(self) -> str:
        """The person if known, else the tracklet."""
        return self.name if self.person is None else f"person {self.person}"


class LiveTrack(NamedTuple):
    """State of one track.

    Attributes:
        name: The tracker's id; ``7#2`` for the second track that came with id 7 after the first was closed.
        track_id: The tracker's id.
        frames: First and last frame with a box inside, from 1; None if there was none.
        embedding: ``(D,)`` float32, mean of the clips' vectors so far; None before the first one.
        clips: Clips in the mean.
        skipped_clips: Clips that were left out, since the network was too slow.
        match: Nearest tracklet of the gallery; None without a gallery and before the first vector.
    """

    name: str
    track_id: int
    frames: tuple[int, int] | None
    embedding: Tensor | None
    clips: int
    skipped_clips: int
    match: Match | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the vector as plain numbers and strings, ready for JSON."""
        described = {**self._asdict(), "match": self.match and self.match._asdict()}
        del described["embedding"]
        return described


class LiveUpdate(NamedTuple):
    """What one frame changed.

    Attributes:
        number: Number of the frame.
        tracks: The track of each box, in the order of the boxes; None for boxes without a track and bad ones.
        matched: Open tracks whose nearest person or tracklet in the gallery is another one since the last update.
        closed: Tracks that ended and whose clips are all computed, or skipped.
    """

    number: int
    tracks: tuple[LiveTrack | None, ...]
    matched: tuple[LiveTrack, ...]
    closed: tuple[LiveTrack, ...]


@dataclass
class LiveCounts:
    """What became of frames, boxes and clips.

    Args:
        frames: Updates so far.
        boxes: Boxes with a track.
        untracked_boxes: Boxes without an id, or with a negative one; left out.
        bad_boxes: Boxes without area, with a number that is not finite, or far outside any frame; left out.
        clipped_boxes: Boxes that reached outside the frame and were cut to it.
        dropped_boxes: Boxes that lay outside the frame altogether; left out.
        lost_boxes: Boxes in frames that were lost; left out.
        clips: Clips computed.
        skipped_clips: Clips left out, since the network was too slow.
        tracks: Tracks opened.
        reopened_tracks: Those that came with the id of a track that was closed.
        tracks_without_vector: Closed tracks without a clip.
        longest_wait: Longest time that one update waited for the network, in seconds.
    """

    frames: int = 0
    boxes: int = 0
    untracked_boxes: int = 0
    bad_boxes: int = 0
    clipped_boxes: int = 0
    dropped_boxes: int = 0
    lost_boxes: int = 0
    clips: int = 0
    skipped_clips: int = 0
    tracks: int = 0
    reopened_tracks: int = 0
    tracks_without_vector: int = 0
    longest_wait: float = 0.0


@dataclass(eq=False)
class OpenTrack:
    """Track that is open, or closed with clips that still wait for the network."""

    key: int
    track_id: int
    name: str
    seen: int  # frame of the last box, wherever it lay
    frames: tuple[int, int] | None = None
    mean: Tensor | None = None
    clips: int = 0
    queued: int = 0  # clips that were queued, skipped ones included
    waiting: int = 0  # clips that wait for the network
    skipped: int = 0
    match: Match | None = None
    closing: bool = field(default=False)

    def snapshot(self) -> LiveTrack:
        """Return the state as it is now."""
        return LiveTrack(self.name, self.track_id, self.frames, self.mean, self.clips, self.skipped, self.match)


def stack_tracks(tracks: Sequence[LiveTrack], metadata: Mapping[str, str]) -> Embeddings:
    """Make embeddings of the tracks that have a vector.

    Raises:
        ValueError: If none has one.
    """
    kept = [track for track in tracks if track.embedding is not None and track.frames is not None]
    if not kept:
        raise ValueError(f"tracks must include one with an embedding, got none among {len(tracks)}")
    ids = [track.track_id for track in kept]
    return Embeddings(
        torch.stack([track.embedding for track in kept if track.embedding is not None]),
        torch.tensor(ids if max(ids) < 2**63 else range(1, len(ids) + 1), dtype=torch.int64),
        torch.tensor([track.frames for track in kept], dtype=torch.int64),
        [track.name for track in kept],
        metadata=metadata,
    )
