"""Embed everything that a source holds, into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nl3d.data.clips.batches import Record, SourceReport, track_numbers
from nl3d.data.clips.processor import ChannelOrder
from nl3d.data.clips.sampling import count_clips
from nl3d.data.crops import to_tracklets
from nl3d.data.sources import Source, open_source
from nl3d.data.tracklet_source import TrackletSource
from nl3d.data.tracklets import Tracklet
from nl3d.data.video_source import VideoSource
from nl3d.embedding.embedder import BATCHES_PER_PART, EmbedderOptions, TrackletEmbedder
from nl3d.embedding.embeddings import Embeddings
from nl3d.embedding.loading import progress_bar

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nl3d.data.readers.boxes import BoxOptions, BoxSource


def embed(
    source: Source,
    model: nn.Module | str | None = None,
    *,
    tracks: BoxSource | None = None,
    boxes: BoxOptions | None = None,
    order: ChannelOrder = "rgb",
    skip_unreadable: bool = False,
    progress: bool | None = None,
    labels: dict[str, str] | None = None,
    **options: Unpack[EmbedderOptions],
) -> Embeddings:
    """Embed every tracklet of a video, of a folder, of a table, or of frames in memory.

    A tracklet is cut into consecutive clips that do not overlap
    (:func:`nl3d.data.clips.sampling.consecutive_clips`), its frames are resized once and normalised as the network's
    ``pretrained_cfg`` says, and the vectors of its clips are averaged. A video is decoded once and in order; memory is
    bounded by the tracklets that are open at the same time. A generator of tracklets is read a part at a time. For more
    vectors than fit into memory, or for several processes, use :func:`nl3d.embed_to_file`.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.

    Args:
        source: A video file (with ``tracks``; needs PyAV), a folder of a video's frames (with ``tracks``), a folder of
            tracklet folders, a table of frames (``.csv``, ``.parquet``, data frame;
            :func:`nl3d.data.read_manifest_tracklets`), or frames in memory: ``[[image, image], [image]]``, one inner
            sequence per tracklet, as lists, generators, arrays ``(T, H, W, 3)`` or tensors ``(T, 3, H, W)``; see
            :func:`nl3d.data.crops.to_tracklets`.
        model: The network, see :class:`nl3d.TrackletEmbedder`; the bundled one if left out.
        tracks: Boxes of a video: a file such as ``frame,id,left,top,width,height,...``, an array with these columns, or
            a data frame; see :func:`nl3d.data.read_boxes`.
        boxes: How to read the boxes.
        order: Order of the colours in arrays and tensors, ``"bgr"`` for frames from OpenCV.
        skip_unreadable: Whether a tracklet's frame that does not decode is replaced by the nearest one of its clip that
            does, and counted, rather than an error that names it. Boxes in such frames of a video are left out.
        progress: Whether to show a progress bar; on a terminal, if left out.
        labels: More metadata for the result, such as the model's and the weights' names.
        options: As for :class:`nl3d.TrackletEmbedder`: ``num_frames``, ``frame_step``, ``size``, ``batch_size``,
            ``device``, ``amp``, ``output_layer``, ``workers``.

    Raises:
        FileNotFoundError: If the source or the tracks do not exist.
        ModuleNotFoundError: If the source is a video and PyAV is not installed.
        ChildProcessError: If a worker was killed.
        TypeError: If frames are not uint8 images.
        ValueError: If the source, the tracks or an option cannot be used, or it is open what one tracklet is.

    Example:
        >>> crops = [torch.randint(256, (frames, 3, 90, 40), dtype=torch.uint8) for frames in (9, 4)]
        >>> nl3d.embed(crops)
        Embeddings(2 x 256 float32, resnet3d18_nl/...)
    """
    embedder = TrackletEmbedder(model, **options)
    made = _Rows()
    if isinstance(source, Iterator) and tracks is None:
        opened: VideoSource | TrackletSource | None = None
        with progress_bar(None, progress) as bar:
            for chunk in _chunks(to_tracklets(source, order), embedder):
                opened = TrackletSource(chunk, first=len(made.records))
                made.add(opened, embedder, bar, skip_unreadable=skip_unreadable)
        if opened is None:
            raise ValueError("source must hold at least one tracklet, got none")
        made.number_tracks()
    else:
        opened = open_source(source, tracks, boxes=boxes, order=order)
        with progress_bar(opened.total_frames, progress) as bar:
            made.add(opened, embedder, bar, skip_unreadable=skip_unreadable)
    report = made.report
    if not made.rows:
        raise ValueError(
            f"tracklets must have a readable frame, got none: {report.unreadable[0][1]}"
            if report.unreadable
            else "tracks must have a box inside the frames, got none; check that they belong to this video"
        )
    notes = make_notes(
        made.records,
        made.rows,
        clipped=report.clipped_boxes,
        dropped=report.dropped_boxes,
        unreadable=len(report.unreadable),
    )
    about = {}
    if isinstance(opened, VideoSource):
        ranges, about = [report.ranges[row] for row in made.rows], {"box_options": opened.boxes.options.to_json()}
        notes |= {"left_out_boxes": opened.boxes.left_out, "box_classes": opened.boxes.classes}
    else:
        ranges = [(1, made.lengths[row]) for row in made.rows]
    return Embeddings(
        embeddings=made.vectors[: len(made.rows)],
        frame_ranges=torch.tensor(ranges, dtype=torch.int64),
        metadata={
            **embedder.metadata(),
            "source": str(opened.path or ""),
            "tracks": str(opened.tracks or ""),
            **about,
            "notes": json.dumps(notes),
            **(labels or {}),
        },
        **columns([made.records[row] for row in made.rows]),
    )


class _Rows:
    """Vectors of one source after another, in one block: many small ones would fragment the memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.lengths: list[int] = []  # frames of each tracklet, not known for a video
        self.rows: list[int] = []  # tracklets that have a vector
        self.vectors = torch.empty(0)
        self.report = SourceReport()

    def add(
        self, source: VideoSource | TrackletSource, embedder: TrackletEmbedder, bar: Any, *, skip_unreadable: bool
    ) -> None:
        first, parts = len(self.records), [range(len(source.records))]
        self.records += source.records
        if isinstance(source, TrackletSource):
            self.lengths += source.lengths
            parts = embedder.cut(source.lengths)
        for kept, means in embedder.averages(source, parts, self.report, bar, skip_unreadable=skip_unreadable):
            if kept:
                self._append(means)
                self.rows += [first + row for row in kept]

    def _append(self, means: Tensor) -> None:
        start, stop = len(self.rows), len(self.rows) + len(means)
        if not start and stop == len(self.records):
            self.vectors = means
            return
        if stop > len(self.vectors):
            larger = torch.empty(max(len(self.records), 2 * len(self.vectors)), means.shape[1])
            if start:
                larger[:start] = self.vectors[:start]
            self.vectors = larger
        self.vectors[start:stop] = means

    def number_tracks(self) -> None:
        """Number the tracks of several sources together."""
        numbers = track_numbers([record.name for record in self.records])
        self.records = [record._replace(track_id=number) for record, number in zip(self.records, numbers, strict=True)]


def _chunks(tracklets: Iterator[Tracklet], embedder: TrackletEmbedder) -> Iterator[list[Tracklet]]:
    """Read as many tracklets at a time as make a part; see :meth:`TrackletEmbedder.cut`."""
    plan = embedder.processor.num_frames, embedder.processor.frame_step
    chunk: list[Tracklet] = []
    clips = 0
    for tracklet in tracklets:
        chunk.append(tracklet)
        clips += count_clips(len(tracklet), *plan)
        if clips >= BATCHES_PER_PART * embedder.batch_size:
            yield chunk
            chunk, clips = [], 0
    if chunk:
        yield chunk


def make_notes(
    records: Sequence[Record], rows: Sequence[int], *, clipped: int = 0, dropped: int = 0, unreadable: int = 0
) -> dict[str, Any]:
    """Describe what became of boxes, frames and tracklets; ``rows`` are the tracklets that have a vector."""
    kept = set(rows) if len(rows) < len(records) else range(len(records))
    return {
        "clipped_boxes": clipped,
        "dropped_boxes": dropped,
        "dropped_tracks": [record.name for place, record in enumerate(records) if place not in kept],
        "unreadable_frames": unreadable,
    }


def columns(records: Sequence[Record]) -> dict[str, Any]:
    """Return what is known of tracklets beside their vectors, as arguments of :class:`Embeddings`."""
    return {
        "names": tuple(record.name for record in records),
        "track_ids": torch.tensor([record.track_id for record in records], dtype=torch.int64),
        "pids": _column([record.pid for record in records]),
        "camids": _column([record.camid for record in records]),
        "people": [record.person for record in records],
        "cameras": [record.camera for record in records],
    }


def _column(values: Sequence[int | None]) -> Tensor | None:
    known = [value for value in values if value is not None]
    return torch.tensor(known, dtype=torch.int64) if len(known) == len(values) else None
