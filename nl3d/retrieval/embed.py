"""From a source of tracklets and a network to one vector a tracklet (Sec. 3)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

import nl3d
from nl3d.data.sources import ClipSource, SourceReport, StreamedClip, open_source
from nl3d.retrieval.embeddings import Embeddings
from nl3d.retrieval.network import ClipRunner, choose_layer, fingerprint
from nl3d.retrieval.prefetch import prefetch

if TYPE_CHECKING:
    from nl3d.data.tracklets import Tracklet

OutputLayer: TypeAlias = Literal["auto", "features", "embedding"]
"""Which vector of the network stands for a clip."""


def embed(
    source: str | Path | Sequence[Tracklet],
    model: nn.Module,
    *,
    tracks: str | Path | None = None,
    num_frames: int | None = None,
    frame_step: int | None = None,
    size: tuple[int, int] | None = None,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    amp: bool = False,
    output_layer: OutputLayer = "auto",
    progress: bool | None = None,
    labels: dict[str, str] | None = None,
) -> Embeddings:
    """Embed every tracklet of a video, of a folder, or of a list.

    A tracklet is cut into consecutive clips that do not overlap (:func:`nl3d.data.clips.consecutive_clips`), its frames
    resized and normalised as the network's ``pretrained_cfg`` says, and the vectors of its clips are averaged. A video
    is decoded once and in order; memory is bounded by the tracklets that are open at the same time.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.

    Args:
        source: A video file (with ``tracks``; needs PyAV), a folder of a video's frames (with ``tracks``), a folder of
            tracklet folders, or tracklets.
        model: A network that takes clips ``(B, 3, T, H, W)`` and returns :class:`nl3d.ReIDOutput` or a tensor
            ``(B, D)``. It runs in evaluation mode and keeps the mode it came in.
        tracks: Boxes in MOTChallenge text, ``frame,id,left,top,width,height,...``, frames from 1.
        num_frames: Frames of a clip; the network's own if left out.
        frame_step: Frames from one frame of a clip to the next; the network's own if left out.
        size: Height and width of a frame, in pixels; the network's own if left out.
        batch_size: Clips that the network takes at once.
        device: Where to run, ``"auto"`` for the best there is; the network moves there. Where it is, if left out.
        amp: Whether to run under autocast (bfloat16; float16 on GPUs without it).
        output_layer: ``"embedding"`` for the layer before the classifier, ``"features"`` for the pooled feature map,
            or ``"auto"``: the embedding if a checkpoint filled the layer that makes it, else the features, since a
            layer drawn at random would only blur them.
        progress: Whether to show a progress bar; on a terminal, if left out.
        labels: More metadata for the result, such as the model's and the weights' names.

    Raises:
        FileNotFoundError: If the source or the tracks do not exist.
        ModuleNotFoundError: If the source is a video and PyAV is not installed.
        ValueError: If the source, the tracks or an option cannot be used; the message says which and why.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if output_layer not in ("auto", "features", "embedding"):
        raise ValueError(f"output_layer must be one of 'auto', 'features', 'embedding', got {output_layer!r}")
    clip_source = open_source(source, tracks)
    config = getattr(model, "pretrained_cfg", None) or {}
    num_frames = config.get("num_frames", 8) if num_frames is None else num_frames
    frame_step = config.get("frame_step", 1) if frame_step is None else frame_step
    height, width = config.get("input_size", (3, 256, 128))[1:] if size is None else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be (height, width), each at least 1, got {(height, width)}")
    layer = choose_layer(model) if output_layer == "auto" else output_layer
    runner = ClipRunner(model, device, amp, layer, config.get("mean"), config.get("std"))

    report = SourceReport()
    stream = clip_source.clips(num_frames, frame_step, (height, width), report)
    means = torch.empty(0)  # one block for all, since many small ones would pin the memory between them
    counts = [0] * len(clip_source.records)
    ready = prefetch(stream, ahead=2 * batch_size)
    with closing(ready), runner, _progress_bar(clip_source.total_frames, progress) as bar:
        for batch in _batches(ready, batch_size):
            vectors = runner(torch.stack([clip.images for clip in batch]))
            if not means.numel():
                means = torch.zeros(len(counts), vectors.shape[1])
            for clip, vector in zip(batch, vectors, strict=True):
                counts[clip.tracklet] += 1
                means[clip.tracklet] += (vector - means[clip.tracklet]) / counts[clip.tracklet]
            bar.update(sum(clip.progress for clip in batch))
        bar.update(bar.total - bar.n)  # frames after the last clip
    rows = [row for row, count in enumerate(counts) if count]
    if not rows:
        raise ValueError("tracks must have a box inside the frames, got none; check that they belong to this video")
    preprocessing = {
        "num_frames": num_frames, "frame_step": frame_step, "size": [height, width], "interpolation": "bilinear",
        "mean": list(runner.mean), "std": list(runner.std),
    }  # fmt: skip
    metadata = {
        "model": str(config.get("architecture") or type(model).__name__),
        "weights": str(config.get("weights") or config.get("tag") or ""),
        "network": fingerprint(model),
        "output": layer,
        "preprocessing": json.dumps(preprocessing),
        "source": str(clip_source.path or ""),
        "tracks": str(clip_source.tracks or ""),
        "notes": json.dumps(_notes(clip_source, report)),
        "nl3d_version": nl3d.__version__,
        **(labels or {}),
    }
    records = [clip_source.records[row] for row in rows]
    return Embeddings(
        embeddings=means if len(rows) == len(means) else means[rows],
        track_ids=torch.tensor([record.track_id for record in records], dtype=torch.int64),
        frame_ranges=torch.tensor([report.ranges[row] for row in rows], dtype=torch.int64),
        names=tuple(record.name for record in records),
        pids=_column([record.pid for record in records]),
        camids=_column([record.camid for record in records]),
        metadata=metadata,
    )


def _batches(clips: Iterator[StreamedClip], batch_size: int) -> Iterator[list[StreamedClip]]:
    batch = []
    for clip in clips:
        batch.append(clip)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _progress_bar(total: int, progress: bool | None) -> Any:
    from huggingface_hub.utils import tqdm

    shown = sys.stderr.isatty() if progress is None else progress
    return tqdm(total=total, unit=" frames", desc="embed", disable=not shown, name="nl3d.embed")


def _notes(source: ClipSource, report: SourceReport) -> dict[str, Any]:
    empty = [record.name for index, record in enumerate(source.records) if index not in report.ranges]
    return {
        "clipped_boxes": report.clipped_boxes,
        "dropped_boxes": report.dropped_boxes,
        "dropped_tracks": empty,
    }


def _column(values: list[int | None]) -> Tensor | None:
    known = [value for value in values if value is not None]
    return torch.tensor(known, dtype=torch.int64) if len(known) == len(values) else None
