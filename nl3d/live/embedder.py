"""Embeddings of tracks that are still open, frame by frame, beside any tracker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from nl3d.data.clips.collector import ClipCollector
from nl3d.data.clips.processor import ChannelOrder
from nl3d.data.frames.video import frame_to_image
from nl3d.data.readers.boxes import cut_box
from nl3d.data.tracklets import to_image
from nl3d.embedding.embedder import TrackletEmbedder
from nl3d.embedding.embeddings import Embeddings
from nl3d.gallery.gallery import Gallery
from nl3d.live.detections import BoxCoordinates, TrackedBoxes, read_detections
from nl3d.live.matcher import GalleryMatcher
from nl3d.live.tracks import LiveCounts, LiveTrack, LiveUpdate, OpenTrack, stack_tracks
from nl3d.live.worker import NetworkThread
from nl3d.metrics.distance import Metric
from nl3d.retrieval.calibration import Calibration


class LiveEmbedder:
    """Embeds the tracks of a running tracker, and matches them with a gallery while they are open.

    Each box is cut out and resized as :func:`nl3d.embed` does, at the frames that a clip takes. Full clips wait in a
    bounded queue for the network, which runs in a thread of its own; the embedding of a track is the mean over its
    clips so far. A track that got no box for more than ``close_after`` frames is closed: its last frames become one
    more clip. Its embedding is then the one of :func:`nl3d.embed` for the same boxes, unless clips were skipped.

    Memory holds less than one clip of resized frames per open track, the queue, and the id of each closed track.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.

    Args:
        model: A network, or a :class:`nl3d.TrackletEmbedder` with options of its own. It is in evaluation mode until
            :meth:`close`.
        gallery: A :class:`nl3d.Gallery`, which may change meanwhile, or embeddings, or a file of either, to match
            tracks with; none, if left out.
        metric: How distances to the gallery are measured.
        calibration: As for :func:`nl3d.rank`; matches then have a probability and a decision.
        order: Order of the colours of frames in arrays and tensors, ``"rgb"``, or ``"bgr"`` for frames from OpenCV.
            It may be left out for frames that know it: PIL images and frames of PyAV.
        coordinates: What the numbers of boxes in arrays are: ``"xyxy"`` for two corners, ``"ltwh"`` for left, top,
            width and height. It may be left out for boxes of supervision and Ultralytics.
        close_after: Frames without a box that a track survives; after one more it is closed. Use the number for which
            the tracker keeps a lost track (30 in ByteTrack and BoT-SORT, 70 in DeepSORT), or more.
        budget_ms: Longest time that one update waits for the network, in milliseconds, when the queue is full. Then a
            clip is skipped and counted. None waits as long as it takes, and skips none.
        queue_size: Clips that wait for the network, at most; two batches, if left out.

    Raises:
        FileNotFoundError: If the gallery does not exist.
        ValueError: If an option is out of range, embeddings are empty, or gallery or calibration are of another
            network.

    Example:
        >>> live = nl3d.LiveEmbedder(nl3d.resnet3d18_nl("bundled"), order="bgr", coordinates="xyxy")
        >>> frame = np.zeros((120, 160, 3), dtype=np.uint8)
        >>> live.update(frame, [[10, 20, 50, 110]], ids=[7]).tracks[0].name
        '7'
        >>> live.close().closed[0].embedding.shape
        torch.Size([256])
    """

    def __init__(
        self,
        model: nn.Module | TrackletEmbedder,
        *,
        gallery: Gallery | Embeddings | str | Path | None = None,
        metric: Metric = "euclidean",
        calibration: Calibration | str | Path | None = None,
        order: ChannelOrder | None = None,
        coordinates: BoxCoordinates | None = None,
        close_after: int = 90,
        budget_ms: float | None = 20.0,
        queue_size: int | None = None,
    ) -> None:
        if order not in (None, "rgb", "bgr"):
            raise ValueError(f"order must be 'rgb' or 'bgr', got {order!r}")
        if coordinates not in (None, "xyxy", "ltwh"):
            raise ValueError(f"coordinates must be 'xyxy' or 'ltwh', got {coordinates!r}")
        if close_after < 1:
            raise ValueError(f"close_after must be at least 1 frame, got {close_after}")
        if budget_ms is not None and not budget_ms >= 0:
            raise ValueError(f"budget_ms must be at least 0, or None, got {budget_ms}")
        self.embedder = model if isinstance(model, TrackletEmbedder) else TrackletEmbedder(model)
        self.order, self.coordinates = order, coordinates
        self.close_after, self.budget = close_after, None if budget_ms is None else budget_ms / 1000
        self._metadata = self.embedder.metadata()
        matcher = None if gallery is None else GalleryMatcher(gallery, metric, self._metadata, calibration)
        processor = self.embedder.processor
        self._collector = ClipCollector(processor.num_frames, processor.frame_step)
        self._number = 0
        self._open: dict[int, OpenTrack] = {}
        self._visits: dict[int, int] = {}  # tracks opened with each id
        self._counts = LiveCounts()
        waiting = 2 * self.embedder.batch_size if queue_size is None else queue_size
        self._worker = NetworkThread(self.embedder, matcher, self._counts, waiting)

    def update(self, frame: Any = None, boxes: Any = None, ids: Any = None, *, number: int | None = None) -> LiveUpdate:
        """Take one frame and its boxes. Everything is checked before anything changes.

        Args:
            frame: The frame: uint8 array ``(H, W, 3)`` or tensor ``(3, H, W)``, PIL image, or frame of PyAV. None for a
                frame that was lost: its boxes keep their tracks open, and show nothing.
            boxes: ``supervision.Detections``, Ultralytics' ``Results``, an array ``(n, 4)``, or None for no boxes.
            ids: The tracker's id of each box of an array, a whole number; negative for a box without a track.
            number: Number of the frame, above that of the last update; the next one, if left out.

        Raises:
            TypeError: If frame or ids are of a kind that is not known.
            ValueError: If shapes do not fit, an id occurs twice, or order or coordinates were neither given nor known.
        """
        self._check_running()
        number = self._number + 1 if number is None else number
        if number <= self._number:
            raise ValueError(f"number must be above that of the last frame, {self._number}, got {number}")
        found = read_detections(boxes, ids, self.coordinates)
        image = None if frame is None else self._image(frame)
        self._number = number
        self._count(found, lost=image is None)
        deadline = None if self.budget is None else time.perf_counter() + self.budget
        tracks = []
        for track_id, box in zip(found.ids, found.boxes, strict=True):
            track = None if track_id is None else self._track(track_id)
            tracks.append(track)
            if track is not None and image is not None:
                self._add(track, image, box, deadline)
        limit = number - self.close_after
        for track in [track for track in self._open.values() if track.seen < limit]:
            self._close(track, deadline)
        return LiveUpdate(number, *self._worker.collect(tracks))  # type: ignore[arg-type]

    def close(self, *, budget_ms: float | None = None) -> LiveUpdate:
        """Close all tracks, compute the clips that wait, and end the network's thread. It may be called again.

        Args:
            budget_ms: Longest time to wait for the network, in milliseconds; then the clips that wait are skipped. None
                waits as long as it takes.
        """
        deadline = None if budget_ms is None else time.perf_counter() + budget_ms / 1000
        self._end(deadline)
        if self._worker.error is not None:
            raise self._worker.error
        return LiveUpdate(self._number, *self._worker.collect([]))  # type: ignore[arg-type]

    def __enter__(self) -> LiveEmbedder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Close, without waiting for the network after an error; :meth:`close` still returns what this closed."""
        self._end(None if kind is None else time.perf_counter())
        if kind is None and self._worker.error is not None:
            raise self._worker.error

    @property
    def counts(self) -> LiveCounts:
        """What became of frames, boxes and clips so far."""
        with self._worker.changed:
            return replace(self._counts)

    @property
    def tracks(self) -> dict[int, LiveTrack]:
        """Open tracks by id."""
        with self._worker.changed:
            return {track_id: track.snapshot() for track_id, track in self._open.items()}

    def stack(self, tracks: Sequence[LiveTrack], **metadata: str) -> Embeddings:
        """Make :class:`nl3d.Embeddings` of closed tracks, to save, rank and use as a gallery.

        Args:
            tracks: Tracks; those without an embedding are left out.
            metadata: More metadata, such as ``source``.

        Raises:
            ValueError: If none has an embedding.
        """
        return stack_tracks(tracks, {**self._metadata, **metadata})

    def _check_running(self) -> None:
        if self._worker.error is not None:
            raise self._worker.error
        if not self._worker.running:
            raise ValueError("update must come before close; make another LiveEmbedder for another stream")

    def _end(self, deadline: float | None) -> None:
        for track in list(self._open.values()):
            self._close(track, deadline)
        self._worker.close(deadline)

    def _image(self, frame: Any) -> Tensor:
        """Return the pixels ``(3, H, W)``, without a change of the order of colours in arrays."""
        if isinstance(frame, np.ndarray | Tensor):
            if self.order is None:
                raise ValueError(
                    "order must be given for frames in arrays: 'bgr' for frames from OpenCV, or 'rgb'; got None"
                )
            return to_image(frame)
        if self.order == "bgr":
            raise ValueError(f"order must be left out for frames that know their own, got 'bgr' with {type(frame)}")
        return frame_to_image(frame) if hasattr(frame, "reformat") else to_image(frame)

    def _count(self, found: TrackedBoxes, *, lost: bool) -> None:
        tracked = len(found.ids) - found.ids.count(None)
        self._counts.frames += 1
        self._counts.boxes += tracked
        self._counts.untracked_boxes += found.untracked
        self._counts.bad_boxes += found.bad
        self._counts.lost_boxes += tracked if lost else 0

    def _track(self, track_id: int) -> OpenTrack:
        """Return the open track of an id, or open one."""
        track = self._open.get(track_id)
        if track is None:
            visit = self._visits[track_id] = self._visits.get(track_id, 0) + 1
            name = str(track_id) if visit == 1 else f"{track_id}#{visit}"
            self._counts.tracks += 1
            self._counts.reopened_tracks += visit > 1
            track = self._open[track_id] = OpenTrack(self._counts.tracks, track_id, name, self._number)
        track.seen = self._number
        return track

    def _add(self, track: OpenTrack, image: Tensor, box: Any, deadline: float | None) -> None:
        """Cut one box out, and queue the clip that it fills."""
        cut = cut_box(image, box)
        if cut is None:
            self._counts.dropped_boxes += 1
            return
        pixels, clipped = cut
        self._counts.clipped_boxes += clipped
        track.frames = (track.frames or (self._number,))[0], self._number
        if self._collector.takes(track.key):
            resized = self.embedder.processor.resize([pixels])[0]
            clip = self._collector.add(track.key, resized.flip(0) if self.order == "bgr" else resized)
            if clip is not None:
                self._worker.put(track, clip, deadline)

    def _close(self, track: OpenTrack, deadline: float | None) -> None:
        del self._open[track.track_id]
        clip = self._collector.close(track.key)
        if clip is not None:
            self._worker.put(track, clip, deadline)
        self._worker.end(track)
