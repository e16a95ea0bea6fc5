"""Scores of a network on a data set's queries and gallery, the work shared between ranks (Sec. 3, 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nl3d.data.clips.dataset import ClipDataset
from nl3d.data.clips.transforms import ClipTransform
from nl3d.data.dataset import ReIDDataset
from nl3d.data.tracklets import Tracklet
from nl3d.metrics import RankingResult, evaluate
from nl3d.training.batches import on_device
from nl3d.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

CURVE = tuple(range(1, 51))  # ranks of the CMC curve


class Evaluation:
    """Embeds every tracklet of query and gallery once, as the mean over its clips, and scores the ranking.

    The network is compared by its embedding, the layer before the classifier.

    Args:
        dataset: What to rank.
        config: Clips, distance, rule for average precision.
        accelerator: Where it runs; each rank embeds every so-manieth tracklet.

    Raises:
        ValueError: If there is no query or no gallery.
    """

    def __init__(self, dataset: ReIDDataset, config: TrainingConfig, accelerator: Accelerator) -> None:
        if not dataset.query or not dataset.gallery:
            raise ValueError(f"dataset must have query and gallery to be evaluated on, but {dataset.name} lacks one")
        self.dataset, self.config, self.accelerator = dataset, config, accelerator
        nobody = set(dataset.junk_pids)
        gallery = [tracklet for tracklet in dataset.gallery if tracklet.pid not in nobody]  # junk is never ranked
        places = {id(tracklet): place for place, tracklet in enumerate(_distinct((*dataset.query, *gallery)))}
        self.tracklets = _distinct((*dataset.query, *gallery))
        self.gallery = gallery
        self.query_rows = torch.tensor([places[id(tracklet)] for tracklet in dataset.query])
        self.gallery_rows = torch.tensor([places[id(tracklet)] for tracklet in gallery])

    def __call__(self, network: nn.Module) -> dict[str, Any]:
        """Score a network in evaluation mode, alike on all ranks."""
        rows, unreadable = self.embed(network)
        query, gallery = rows[self.query_rows], rows[self.gallery_rows]
        options = self.dataset.evaluate_options()
        if self.config.ap != "auto":
            options["ap"] = self.config.ap
        result = evaluate(
            query,
            gallery,
            *(_labels(part, "pid") for part in (self.dataset.query, self.gallery)),
            *(_labels(part, "camid") for part in (self.dataset.query, self.gallery)),
            metric=self.config.metric,
            ranks=CURVE,
            **options,
        )
        return {**as_json(result), "protocol": self.dataset.protocol, "unreadable_test_frames": unreadable}

    @torch.inference_mode()
    def embed(self, network: nn.Module) -> tuple[Tensor, int]:
        """Embeddings ``(N, D)`` of all tracklets in float32 on the CPU, and how many frames could not be read."""
        world, device = self.accelerator.num_processes, self.accelerator.device
        share = -(-len(self.tracklets) // world)
        width: Any = network.embedding_dim
        sums = torch.zeros(share, width, dtype=torch.float64, device=device)
        counts = torch.zeros(share, 1, dtype=torch.float64, device=device)
        unreadable = torch.zeros((), dtype=torch.float64, device=device)
        for sample in self._batches(self.tracklets[self.accelerator.process_index :: world]):
            with self.accelerator.autocast():
                vectors = network(on_device(sample.clip, self.accelerator, network)).embedding
            places = sample.tracklet.to(device)
            sums.index_add_(0, places, vectors.double())
            counts.index_add_(0, places, torch.ones_like(vectors[:, :1], dtype=torch.float64))
            unreadable += sample.unreadable.sum()
        rows: Any = sums / counts.clamp(min=1)
        if world > 1:
            unreadable = self.accelerator.reduce(unreadable, reduction="sum")
            rows = self.accelerator.gather(rows).view(world, share, width)
            rows = rows.transpose(0, 1).reshape(world * share, width)  # the ranks took turns
        return rows[: len(self.tracklets)].float().cpu(), int(unreadable)

    def _batches(self, tracklets: Sequence[Tracklet]) -> Iterable[Any]:
        config = self.config
        if not tracklets:
            return ()
        clips = ClipDataset(
            tracklets,
            num_frames=config.num_frames,
            strategy="dense",
            frame_step=config.frame_step,
            transform=ClipTransform((config.height, config.width), normalise=False),
            skip_unreadable=config.skip_unreadable,
        )
        generator = torch.Generator()  # the loader draws a seed, and must not draw it from dropout's generator
        return DataLoader(clips, config.eval_batch, num_workers=config.num_workers, generator=generator)


def as_json(result: RankingResult) -> dict[str, Any]:
    """What a run notes of an evaluation; CMC by rank, as text, since JSON has no other keys."""
    return {
        "cmc": {str(rank): value for rank, value in result.cmc.items()},
        "mAP": result.mAP,
        "mINP": result.mINP,
        "num_queries": result.num_queries,
        "num_valid_queries": result.num_valid_queries,
        "num_gallery": result.num_gallery,
        "ap": result.ap,
    }


def _labels(tracklets: Sequence[Tracklet], name: str) -> list[int]:
    return [getattr(tracklet, name) for tracklet in tracklets]


def _distinct(tracklets: Sequence[Tracklet]) -> list[Tracklet]:
    """Each tracklet once: official galleries hold the queries too."""
    return list({id(tracklet): tracklet for tracklet in tracklets}.values())
