"""From a source of tracklets and a network to one vector a tracklet (Sec. 3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nl3d.data.sources import Record, SourceReport, TrackletSource, VideoSource, open_source
from nl3d.embedding.embedder import OutputLayer, TrackletEmbedder, progress_bar
from nl3d.embedding.embeddings import Embeddings

if TYPE_CHECKING:
    from nl3d.data.readers.boxes import BoxOptions
    from nl3d.data.tracklets import Tracklet


def embed(
    source: str | Path | Sequence[Tracklet] | VideoSource | TrackletSource,
    model: nn.Module,
    *,
    tracks: str | Path | None = None,
    boxes: BoxOptions | None = None,
    num_frames: int | None = None,
    frame_step: int | None = None,
    size: tuple[int, int] | None = None,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    amp: bool = False,
    output_layer: OutputLayer = "auto",
    skip_unreadable: bool = False,
    progress: bool | None = None,
    labels: dict[str, str] | None = None,
) -> Embeddings:
    """Embed every tracklet of a video, of a folder, of a table, or of a list.

    A tracklet is cut into consecutive clips that do not overlap
    (:func:`nl3d.data.clips.consecutive.consecutive_clips`), its frames are resized and normalised as the network's
    ``pretrained_cfg`` says, and the vectors of its clips are averaged. A video is decoded once and in order; memory is
    bounded by the tracklets that are open at the same time. For more vectors than memory holds, or for several
    processes, use :func:`nl3d.embed_to_file`.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.

    Args:
        source: A video file (with ``tracks``; needs PyAV), a folder of a video's frames (with ``tracks``), a folder of
            tracklet folders, a table of frames (``.csv``, :func:`nl3d.data.read_manifest_tracklets`), or tracklets.
        model: A network that takes clips ``(B, 3, T, H, W)`` and returns :class:`nl3d.ReIDOutput` or a tensor
            ``(B, D)``. It runs in evaluation mode and keeps the mode it came in.
        tracks: File of boxes, such as ``frame,id,left,top,width,height,...``; see :func:`nl3d.data.read_boxes`.
        boxes: How to read the file of boxes.
        num_frames: Frames of a clip; the network's own if left out.
        frame_step: Frames from one frame of a clip to the next; the network's own if left out.
        size: Height and width of a frame, in pixels; the network's own if left out.
        batch_size: Clips that the network takes at once.
        device: Where to run, ``"auto"`` for the best there is; the network moves there. Where it is, if left out.
        amp: Whether to run under autocast (bfloat16; float16 on GPUs without it).
        output_layer: ``"embedding"`` for the layer before the classifier, ``"features"`` for the pooled feature map,
            or ``"auto"``: the embedding if a checkpoint filled the layer that makes it, else the features, since a
            layer drawn at random would only blur them.
        skip_unreadable: Whether a tracklet's frame that does not decode is replaced by the nearest one of its clip that
            does, and counted, rather than an error that names it. Boxes in such frames of a video are left out.
        progress: Whether to show a progress bar; on a terminal, if left out.
        labels: More metadata for the result, such as the model's and the weights' names.

    Raises:
        FileNotFoundError: If the source or the tracks do not exist.
        ModuleNotFoundError: If the source is a video and PyAV is not installed.
        ValueError: If the source, the tracks or an option cannot be used; the message says which and why.
    """
    embedder = TrackletEmbedder(
        model,
        num_frames=num_frames,
        frame_step=frame_step,
        size=size,
        batch_size=batch_size,
        device=device,
        amp=amp,
        output_layer=output_layer,
    )
    clip_source = open_source(source, tracks, boxes=boxes)
    report = SourceReport()
    plan = embedder.num_frames, embedder.frame_step, embedder.size, report
    everything = range(len(clip_source.records))
    if isinstance(clip_source, TrackletSource):
        parts = embedder.cut([len(tracklet) for tracklet in clip_source.tracklets])
        clips = clip_source.clips_of(everything, *plan, skip_unreadable=skip_unreadable)
    else:
        parts, clips = [everything], clip_source.clips(*plan, skip_unreadable=skip_unreadable)
    rows: list[int] = []
    vectors = torch.empty(0)
    with progress_bar(clip_source.total_frames, progress) as bar:
        for kept, means in embedder.averages(clips, parts, bar):
            if len(parts) == 1:
                vectors = means
            elif kept:
                vectors = vectors if vectors.numel() else torch.empty(len(everything), means.shape[1])
                vectors[len(rows) : len(rows) + len(kept)] = means
            rows += kept
        bar.update(bar.total - bar.n)  # frames after the last clip
    if not rows:
        raise ValueError(
            f"tracklets must have a readable frame, got none: {report.unreadable[0][1]}"
            if report.unreadable
            else "tracks must have a box inside the frames, got none; check that they belong to this video"
        )
    notes = make_notes(
        clip_source.records,
        rows,
        clipped=report.clipped_boxes,
        dropped=report.dropped_boxes,
        unreadable=len(report.unreadable),
    )
    if isinstance(clip_source, VideoSource):
        notes |= {"left_out_boxes": clip_source.boxes.left_out, "box_classes": clip_source.boxes.classes}
    return Embeddings(
        embeddings=vectors[: len(rows)],
        frame_ranges=torch.tensor([report.ranges[row] for row in rows], dtype=torch.int64),
        metadata={
            **embedder.metadata,
            "source": str(clip_source.path or ""),
            "tracks": str(clip_source.tracks or ""),
            **({"box_options": clip_source.boxes.options.to_json()} if isinstance(clip_source, VideoSource) else {}),
            "notes": json.dumps(notes),
            **(labels or {}),
        },
        **columns([clip_source.records[row] for row in rows]),
    )


def make_notes(
    records: Sequence[Record], rows: Sequence[int], *, clipped: int = 0, dropped: int = 0, unreadable: int = 0
) -> dict[str, Any]:
    """Say what became of boxes, frames and tracklets on the way; ``rows`` are the tracklets that have a vector."""
    kept = set(rows) if len(rows) < len(records) else range(len(records))
    return {
        "clipped_boxes": clipped,
        "dropped_boxes": dropped,
        "dropped_tracks": [record.name for place, record in enumerate(records) if place not in kept],
        "unreadable_frames": unreadable,
    }


def columns(records: Sequence[Record]) -> dict[str, Any]:
    """Give what is known of tracklets beside their vectors, as :class:`Embeddings` takes it."""
    return {
        "names": tuple(record.name for record in records),
        "track_ids": torch.tensor([record.track_id for record in records], dtype=torch.int64),
        "pids": _column([record.pid for record in records]),
        "camids": _column([record.camid for record in records]),
    }


def _column(values: Sequence[int | None]) -> Tensor | None:
    known = [value for value in values if value is not None]
    return torch.tensor(known, dtype=torch.int64) if len(known) == len(values) else None
