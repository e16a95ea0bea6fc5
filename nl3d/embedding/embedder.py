"""The one path from tracklets to vectors: decode, cut, resize once, normalise, network, average (Sec. 3)."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nl3d._version import __version__
from nl3d.data.clips.batches import ClipBatch, Record, SourceReport
from nl3d.data.clips.dataset import forking_workers, worker_errors
from nl3d.data.clips.processor import ClipProcessor
from nl3d.data.clips.sampling import count_clips
from nl3d.data.sources import open_source
from nl3d.data.tracklet_source import TrackletSource
from nl3d.data.video_source import VideoSource
from nl3d.embedding.embeddings import Embeddings
from nl3d.embedding.network import choose_layer, fingerprint, pick_device
from nl3d.layers.precision import float32_on_small_maps

if TYPE_CHECKING:
    from nl3d.data.readers.boxes import BoxOptions
    from nl3d.data.tracklets import Tracklet

OutputLayer: TypeAlias = Literal["auto", "features", "embedding"]
"""Which output of the network is the vector of a clip."""

BATCHES_PER_PART = 64
"""A part's last batch may be small; among this many it costs little."""

MOST_WORKERS = 8
FEWEST_BATCHES = 4  # that a worker is started for; a few are decoded before it would have started


class TrackletEmbedder:
    """A network and how it is used. Options are those of :func:`nl3d.embed`; the network supplies those left out.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_frames: int | None = None,
        frame_step: int | None = None,
        size: tuple[int, int] | None = None,
        batch_size: int = 16,
        device: str | torch.device | None = None,
        amp: bool | torch.dtype = False,
        output_layer: OutputLayer = "auto",
        workers: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be at least 0, got {workers}")
        if output_layer not in ("auto", "features", "embedding"):
            raise ValueError(f"output_layer must be one of 'auto', 'features', 'embedding', got {output_layer!r}")
        self.model, self.batch_size, self.workers = model, batch_size, workers
        self.processor = ClipProcessor.of(model, num_frames=num_frames, frame_step=frame_step, size=size)
        self.layer: str = choose_layer(model) if output_layer == "auto" else output_layer
        parameter = next(model.parameters(), torch.empty(0))
        self.device = parameter.device if device is None else pick_device(device)
        self.dtype = parameter.dtype
        self.amp = _autocast_dtype(self.device) if amp is True else amp or None

    def metadata(self) -> dict[str, str]:
        """Describe network and preprocessing, for :class:`Embeddings`."""
        config = getattr(self.model, "pretrained_cfg", None) or {}
        processor = self.processor
        preprocessing = {
            "num_frames": processor.num_frames, "frame_step": processor.frame_step, "size": list(processor.size),
            "interpolation": "bilinear", "mean": list(processor.mean), "std": list(processor.std),
        }  # fmt: skip
        return {
            "model": str(config.get("architecture") or type(self.model).__name__),
            "weights": str(config.get("weights") or config.get("tag") or ""),
            "network": fingerprint(self.model),
            "output": self.layer,
            "preprocessing": json.dumps(preprocessing),
            "nl3d_version": __version__,
        }

    def cut(self, lengths: Sequence[int], batches: int = BATCHES_PER_PART) -> list[range]:
        """Cut tracklets into parts of consecutive ones, each with enough clips for ``batches`` batches or more.

        Args:
            lengths: Frames of each tracklet.
            batches: Batches per part.
        """
        parts, start, clips = [], 0, 0
        for place, length in enumerate(lengths, 1):
            clips += count_clips(length, self.processor.num_frames, self.processor.frame_step)
            if clips >= batches * self.batch_size or place == len(lengths):
                parts.append(range(start, place))
                start, clips = place, 0
        return parts

    def averages(
        self,
        source: TrackletSource | VideoSource,
        parts: Sequence[range],
        report: SourceReport,
        bar: Any,
        *,
        skip_unreadable: bool = False,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Embed one part after another. A part's vectors do not depend on the other parts, nor on the workers.

        Args:
            source: The tracklets.
            parts: Tracklets of each part.
            report: Filled with what became of boxes and frames.
            bar: Progress bar of frames.
            skip_unreadable: As for :func:`nl3d.embed`.

        Returns:
            For each part the tracklets that had a clip, and ``(N, D)`` float32, the mean of each one's clip vectors.
        """
        dataset = source.batches(parts, self.processor, self.batch_size, skip_unreadable=skip_unreadable)
        with closing(_load(dataset, self.count_workers(source))) as batches, self._evaluating():
            waiting = next(batches, None)
            for number, part in enumerate(parts):
                means = torch.empty(0, 0)  # one block, since many small ones would fragment the memory
                counts = [0] * len(part)
                while waiting is not None and waiting.part == number:
                    report.add(waiting.report)
                    vectors = self.vectors(waiting.images) if waiting.rows else means
                    if waiting.rows and not means.numel():
                        means = torch.zeros(len(part), vectors.shape[1])
                    for row, vector in zip(waiting.rows, vectors, strict=False):
                        place = row - part.start
                        counts[place] += 1
                        means[place] += (vector - means[place]) / counts[place]
                    bar.update(waiting.progress)
                    waiting = next(batches, None)
                kept = [place for place, count in enumerate(counts) if count]
                yield [part.start + place for place in kept], means if len(kept) == len(part) else means[kept]

    @torch.inference_mode()
    def vectors(self, images: Tensor) -> Tensor:
        """Run the network, which must be in evaluation mode on its device.

        Shape:
            - Input: ``(B, T, 3, H, W)`` uint8
            - Output: ``(B, D)`` float64 on the CPU, so that averages do not depend on the batches
        """
        moved = images.to(self.device, non_blocking=True).transpose(1, 2)  # while they are bytes
        clips = self.processor.normalise(moved).to(self.dtype)
        with torch.autocast(self.device.type, self.amp) if self.amp else nullcontext(), float32_on_small_maps(clips):
            output: Any = self.model(clips)
        vectors = output if isinstance(output, Tensor) else getattr(output, self.layer)
        return vectors.double().cpu()

    def _evaluating(self) -> AbstractContextManager[Any]:
        self.model.to(self.device)
        return _Evaluating(self.model)

    def count_workers(self, source: TrackletSource | VideoSource) -> int:
        """Return how many processes decode: those asked for, or as many as there are spare cores."""
        useful = source.max_workers()
        if self.workers is not None:
            return min(self.workers, useful) if useful else 0
        clips = -(-source.total_frames // (self.processor.num_frames * self.processor.frame_step))
        few = clips < FEWEST_BATCHES * self.batch_size
        # A process that is not forked runs the caller's script again, so it is started only if asked for.
        forks = multiprocessing.get_start_method() == "fork" and not multiprocessing.current_process().daemon
        return 0 if few or not forks else min(useful, _spare_cores(), MOST_WORKERS)


class _Evaluating(AbstractContextManager["_Evaluating"]):
    """A network in evaluation mode; each module gets its own mode back."""

    def __init__(self, model: nn.Module) -> None:
        self.training = [module for module in model.modules() if module.training]
        model.eval()

    def __exit__(self, *_: object) -> None:
        for module in self.training:
            module.training = True


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
    amp: bool | torch.dtype = False,
    output_layer: OutputLayer = "auto",
    workers: int | None = None,
    skip_unreadable: bool = False,
    progress: bool | None = None,
    labels: dict[str, str] | None = None,
) -> Embeddings:
    """Embed every tracklet of a video, of a folder, of a table, or of a list.

    A tracklet is cut into consecutive clips that do not overlap
    (:func:`nl3d.data.clips.sampling.consecutive_clips`), its frames are resized once and normalised as the network's
    ``pretrained_cfg`` says, and the vectors of its clips are averaged. A video is decoded once and in order; memory is
    bounded by the tracklets that are open at the same time. For more vectors than fit into memory, or for several
    processes, use :func:`nl3d.embed_to_file`.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.

    Args:
        source: A video file (with ``tracks``; needs PyAV), a folder of a video's frames (with ``tracks``), a folder of
            tracklet folders, a table of frames (``.csv``, :func:`nl3d.data.read_manifest_tracklets`), or tracklets.
            Frames are RGB.
        model: A network that takes clips ``(B, 3, T, H, W)`` and returns :class:`nl3d.ReIDOutput` or a tensor
            ``(B, D)``. It runs in evaluation mode and gets its own mode back.
        tracks: File of boxes, such as ``frame,id,left,top,width,height,...``; see :func:`nl3d.data.read_boxes`.
        boxes: How to read the file of boxes.
        num_frames: Frames per clip; the network's own if left out.
        frame_step: Frames from one frame of a clip to the next; the network's own if left out.
        size: Height and width of a frame, in pixels; the network's own if left out.
        batch_size: Clips per forward pass.
        device: Where to run, ``"auto"`` for the best there is; the network moves there. Where it is, if left out.
        amp: Whether to run under autocast (bfloat16; float16 on GPUs without it), or the dtype of autocast.
        output_layer: ``"embedding"`` for the layer before the classifier, ``"features"`` for the pooled feature map,
            or ``"auto"``: the embedding if a checkpoint filled the layer that makes it, else the features, since a
            layer drawn at random would only blur them.
        workers: Processes that decode while the network computes; 0 decodes in this one. A video has one at most. Left
            out, it is the spare cores, at most 8, or 0 for little work, for frames in memory, and where processes are
            not forked (macOS, Windows). The result is the same for any number.
        skip_unreadable: Whether a tracklet's frame that does not decode is replaced by the nearest one of its clip that
            does, and counted, rather than an error that names it. Boxes in such frames of a video are left out.
        progress: Whether to show a progress bar; on a terminal, if left out.
        labels: More metadata for the result, such as the model's and the weights' names.

    Raises:
        FileNotFoundError: If the source or the tracks do not exist.
        ModuleNotFoundError: If the source is a video and PyAV is not installed.
        ChildProcessError: If a worker was killed.
        ValueError: If the source, the tracks or an option cannot be used.
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
        workers=workers,
    )
    opened = open_source(source, tracks, boxes=boxes)
    count = len(opened.records)
    parts = embedder.cut(opened.lengths) if isinstance(opened, TrackletSource) else [range(count)]
    report = SourceReport()
    rows: list[int] = []
    vectors = torch.empty(0)
    with progress_bar(opened.total_frames, progress) as bar:
        for kept, means in embedder.averages(opened, parts, report, bar, skip_unreadable=skip_unreadable):
            if len(parts) == 1:
                vectors = means
            elif kept:
                vectors = vectors if vectors.numel() else torch.empty(count, means.shape[1])
                vectors[len(rows) : len(rows) + len(kept)] = means
            rows += kept
    if not rows:
        raise ValueError(
            f"tracklets must have a readable frame, got none: {report.unreadable[0][1]}"
            if report.unreadable
            else "tracks must have a box inside the frames, got none; check that they belong to this video"
        )
    notes = make_notes(
        opened.records,
        rows,
        clipped=report.clipped_boxes,
        dropped=report.dropped_boxes,
        unreadable=len(report.unreadable),
    )
    if isinstance(opened, TrackletSource):
        ranges, about = [(1, opened.lengths[row]) for row in rows], {}
    else:
        ranges, about = [report.ranges[row] for row in rows], {"box_options": opened.boxes.options.to_json()}
        notes |= {"left_out_boxes": opened.boxes.left_out, "box_classes": opened.boxes.classes}
    return Embeddings(
        embeddings=vectors[: len(rows)],
        frame_ranges=torch.tensor(ranges, dtype=torch.int64),
        metadata={
            **embedder.metadata(),
            "source": str(opened.path or ""),
            "tracks": str(opened.tracks or ""),
            **about,
            "notes": json.dumps(notes),
            **(labels or {}),
        },
        **columns([opened.records[row] for row in rows]),
    )


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


def progress_bar(total: int, progress: bool | None) -> Any:
    """Make a progress bar of frames; shown on a terminal if ``progress`` is None."""
    from huggingface_hub.utils import tqdm

    shown = sys.stderr.isatty() if progress is None else progress
    return tqdm(total=total, unit=" frames", desc="embed", disable=not shown, name="nl3d.embed")


def _load(dataset: Dataset[ClipBatch], workers: int) -> Generator[ClipBatch, None, None]:
    """Yield a data set's batches in order, two per worker ahead of their reader; end the workers when closed."""
    generator = torch.Generator()  # the loader draws a seed, which must not come from the caller's generator
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=None, num_workers=workers, collate_fn=_unchanged, generator=generator
    )
    with forking_workers():
        batches = iter(loader)
    try:
        while True:
            with worker_errors():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
    finally:
        getattr(batches, "_shutdown_workers", lambda: None)()  # at once, not when the traceback is forgotten


def _unchanged(batch: Any) -> Any:
    return batch


def _spare_cores() -> int:
    """Return the cores that are left for each process of this machine beside the one it runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(cores // max(int(processes) if processes.isdecimal() else 1, 1) - 1, 0)


def _autocast_dtype(device: torch.device) -> torch.dtype:
    half = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if half else torch.bfloat16


def _column(values: Sequence[int | None]) -> Tensor | None:
    known = [value for value in values if value is not None]
    return torch.tensor(known, dtype=torch.int64) if len(known) == len(values) else None
