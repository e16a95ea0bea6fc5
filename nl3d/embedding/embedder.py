"""From clips to one averaged vector a tracklet, in batches that do not depend on who else computes (Sec. 3)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from nl3d._version import __version__
from nl3d.data.clips.consecutive import check_clip_plan
from nl3d.data.sources import StreamedClip
from nl3d.embedding.network import ClipRunner, choose_layer, fingerprint
from nl3d.embedding.prefetch import prefetch

OutputLayer: TypeAlias = Literal["auto", "features", "embedding"]
"""Which vector of the network stands for a clip."""

BATCHES_PER_PART = 64
"""A part's last batch may be small; of this many, one hardly counts."""


class TrackletEmbedder:
    """A network and how to use it. Options are those of :func:`nl3d.embed`; what is left out is the network's own.

    Raises:
        ValueError: If an option cannot be used.
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
        amp: bool = False,
        output_layer: OutputLayer = "auto",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if output_layer not in ("auto", "features", "embedding"):
            raise ValueError(f"output_layer must be one of 'auto', 'features', 'embedding', got {output_layer!r}")
        config = getattr(model, "pretrained_cfg", None) or {}
        self.num_frames: int = config.get("num_frames", 8) if num_frames is None else num_frames
        self.frame_step: int = config.get("frame_step", 1) if frame_step is None else frame_step
        check_clip_plan(self.num_frames, self.frame_step)
        height, width = config.get("input_size", (3, 256, 128))[1:] if size is None else size
        if height < 1 or width < 1:
            raise ValueError(f"size must be (height, width), each at least 1, got {(height, width)}")
        self.size: tuple[int, int] = (height, width)
        self.batch_size = batch_size
        self.layer: str = choose_layer(model) if output_layer == "auto" else output_layer
        self.runner = ClipRunner(model, device, amp, self.layer, config.get("mean"), config.get("std"))
        preprocessing = {
            "num_frames": self.num_frames, "frame_step": self.frame_step, "size": [height, width],
            "interpolation": "bilinear", "mean": list(self.runner.mean), "std": list(self.runner.std),
        }  # fmt: skip
        self.metadata = {
            "model": str(config.get("architecture") or type(model).__name__),
            "weights": str(config.get("weights") or config.get("tag") or ""),
            "network": fingerprint(model),
            "output": self.layer,
            "preprocessing": json.dumps(preprocessing),
            "nl3d_version": __version__,
        }

    def cut(self, lengths: Sequence[int], batches: int = BATCHES_PER_PART) -> list[range]:
        """Cut tracklets into parts of consecutive ones, each with as many clips as fill ``batches`` batches or more.

        Args:
            lengths: Frames of each tracklet.
            batches: Batches of a part.
        """
        span, wanted = self.num_frames * self.frame_step, batches * self.batch_size
        parts, start, clips = [], 0, 0
        for place, length in enumerate(lengths, 1):
            clips += -(-length // span)
            if clips >= wanted or place == len(lengths):
                parts.append(range(start, place))
                start, clips = place, 0
        return parts

    def averages(
        self, clips: Iterator[StreamedClip], parts: Sequence[range], bar: Any
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Embed the clips of one part after another.

        No batch holds clips of two parts, so that a part's vectors are the same whoever computes the others.

        Args:
            clips: Clips of all the parts' tracklets, a part's before the next one's.
            parts: Tracklets of each part.
            bar: Progress bar of the frames passed.

        Returns:
            For each part the tracklets that had a clip, and ``(N, D)`` float32, the mean of each one's clip vectors.
        """
        ready = prefetch(clips, ahead=2 * self.batch_size)
        with closing(ready), self.runner:
            waiting = next(ready, None)

            def clips_in(part: range) -> Iterator[StreamedClip]:
                nonlocal waiting
                while waiting is not None and waiting.tracklet in part:
                    yield waiting
                    waiting = next(ready, None)

            for part in parts:
                means = torch.empty(0, 0)  # one block, since many small ones would pin the memory between them
                counts = [0] * len(part)
                for batch in _batches(clips_in(part), self.batch_size):
                    vectors = self.runner(torch.stack([clip.images for clip in batch]))
                    if not means.numel():
                        means = torch.zeros(len(part), vectors.shape[1])
                    for clip, vector in zip(batch, vectors, strict=True):
                        place = clip.tracklet - part.start
                        counts[place] += 1
                        means[place] += (vector - means[place]) / counts[place]
                    bar.update(sum(clip.progress for clip in batch))
                kept = [place for place, count in enumerate(counts) if count]
                yield [part.start + place for place in kept], means if len(kept) == len(part) else means[kept]


def progress_bar(total: int, progress: bool | None) -> Any:
    """Make a progress bar of frames, shown on a terminal if not said."""
    from huggingface_hub.utils import tqdm

    shown = sys.stderr.isatty() if progress is None else progress
    return tqdm(total=total, unit=" frames", desc="embed", disable=not shown, name="nl3d.embed")


def _batches(clips: Iterator[StreamedClip], batch_size: int) -> Iterator[list[StreamedClip]]:
    batch = []
    for clip in clips:
        batch.append(clip)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
