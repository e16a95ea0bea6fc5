"""The one path from tracklets to vectors: decode, cut, resize once, normalise, network, average (Sec. 3)."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Literal, TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from nl3d._version import __version__
from nl3d.data.clips.batches import SourceReport
from nl3d.data.clips.processor import ClipProcessor
from nl3d.data.clips.sampling import count_clips
from nl3d.data.tracklet_source import TrackletSource
from nl3d.data.video_source import VideoSource
from nl3d.embedding.loading import load_batches, spare_cores
from nl3d.embedding.network import choose_layer, load_network, pick_device
from nl3d.layers.precision import float32_on_small_maps
from nl3d.models.fingerprint import fingerprint

OutputLayer: TypeAlias = Literal["auto", "features", "embedding"]
"""Which output of the network is the vector of a clip."""

BATCHES_PER_PART = 64
"""A part's last batch may be small; among this many it costs little."""

MOST_WORKERS = 8
FEWEST_BATCHES = 4  # that a worker is started for; a few are decoded before it would have started


class EmbedderOptions(TypedDict, total=False):
    """Keywords of :class:`TrackletEmbedder`, which every function that embeds takes too."""

    num_frames: int | None
    frame_step: int | None
    size: tuple[int, int] | None
    batch_size: int
    device: str | torch.device | None
    amp: bool | torch.dtype
    output_layer: OutputLayer
    workers: int | None


class TrackletEmbedder:
    """A network and how it is used: from tracklets to vectors.

    Args:
        model: A network that takes clips ``(B, 3, T, H, W)`` and returns :class:`nl3d.ReIDOutput` or a tensor
            ``(B, D)``; or what :func:`nl3d.from_pretrained` loads, such as a folder or ``"hf-hub:org/name"``. The
            bundled network if left out. It runs in evaluation mode and gets its own mode back.
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

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        model: nn.Module | str | None = None,
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
        self.model, self.batch_size, self.workers = load_network(model), batch_size, workers
        self.processor = ClipProcessor.of(self.model, num_frames=num_frames, frame_step=frame_step, size=size)
        self.layer: str = choose_layer(self.model) if output_layer == "auto" else output_layer
        parameter = next(self.model.parameters(), torch.empty(0))
        self.device = parameter.device if device is None else pick_device(device)
        self.dtype = parameter.dtype
        self.amp = _autocast_dtype(self.device) if amp is True else amp or None

    def __call__(self, batch: Any) -> Any:
        """Embed a batch of columns with one tracklet per row, as ``map_batches`` of Ray Data passes it.

        The class is the function of Ray Data (``dataset.map_batches(nl3d.TrackletEmbedder, ...)``), an object that of
        Spark's ``mapInPandas`` and of ``map(..., batched=True)`` of Hugging Face datasets.

        Args:
            batch: A mapping of columns, a ``pandas.DataFrame``, a ``pyarrow.Table``, or an iterator of these. The
                column ``frames`` holds the images of each tracklet: a list of files, uint8 arrays ``(H, W, 3)``, PIL
                images or encoded images, or one array ``(T, H, W, 3)``. Without it, ``path`` holds the folder of each.

        Returns:
            The same kind with the column ``embedding``, float32 ``(N, D)``, and without ``frames``; other columns stay.

        Raises:
            FileNotFoundError: If a frame does not exist.
            TypeError: If frames are not uint8 images.
            ValueError: If a frame does not decode, or neither column is there.
        """
        from nl3d.embedding.columns import embed_columns

        return embed_columns(self, batch)

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
        with closing(load_batches(dataset, self.count_workers(source))) as batches, self.evaluating():
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

    def evaluating(self) -> AbstractContextManager[Any]:
        """Move the network to its device, and return a context in which it is in evaluation mode."""
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
        return 0 if few or not forks else min(useful, spare_cores(), MOST_WORKERS)


class _Evaluating(AbstractContextManager["_Evaluating"]):
    """A network in evaluation mode; each module gets its own mode back."""

    def __init__(self, model: nn.Module) -> None:
        self.training = [module for module in model.modules() if module.training]
        model.eval()

    def __exit__(self, *_: object) -> None:
        for module in self.training:
            module.training = True


def _autocast_dtype(device: torch.device) -> torch.dtype:
    half = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if half else torch.bfloat16
