"""Scores of a network on a data set's queries and gallery, shared among the ranks (Sec. 3, 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nl3d.data.clips.batches import SourceReport
from nl3d.data.dataset import ReIDDataset
from nl3d.data.tracklet_source import TrackletSource
from nl3d.data.tracklets import Tracklet
from nl3d.embedding.embedder import TrackletEmbedder
from nl3d.embedding.loading import progress_bar
from nl3d.metrics import RankingResult, evaluate
from nl3d.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

CURVE = tuple(range(1, 51))  # ranks of the CMC curve
_AUTOCAST: dict[str, bool | torch.dtype] = {"no": False, "fp16": torch.float16, "bf16": torch.bfloat16}


class Evaluation:
    """Embeds every tracklet of query and gallery once, as :func:`nl3d.embed` does, and scores the ranking.

    Tracklets are compared by the embedding, the layer before the classifier.
    """

    def __init__(self, dataset: ReIDDataset, config: TrainingConfig, accelerator: Accelerator) -> None:
        if not dataset.query or not dataset.gallery:
            raise ValueError(f"dataset must have query and gallery to be evaluated on, but {dataset.name} lacks one")
        self.dataset, self.config, self.accelerator = dataset, config, accelerator
        not_people = set(dataset.junk_pids)
        gallery = [tracklet for tracklet in dataset.gallery if tracklet.pid not in not_people]  # junk is never ranked
        self.gallery, self.tracklets = gallery, _distinct((*dataset.query, *gallery))
        places = {id(tracklet): place for place, tracklet in enumerate(self.tracklets)}
        self.query_rows = torch.tensor([places[id(tracklet)] for tracklet in dataset.query])
        self.gallery_rows = torch.tensor([places[id(tracklet)] for tracklet in gallery])

    def __call__(self, network: nn.Module) -> dict[str, Any]:
        """Score a network; all ranks return the same."""
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

    def embed(self, network: nn.Module) -> tuple[Tensor, int]:
        """Return embeddings ``(N, D)`` of all tracklets, float32 on the CPU, and the number of unreadable frames."""
        config, world, device = self.config, self.accelerator.num_processes, self.accelerator.device
        embedder = TrackletEmbedder(
            network,
            num_frames=config.num_frames,
            frame_step=config.frame_step,
            size=(config.height, config.width),
            batch_size=config.eval_batch,
            amp=_AUTOCAST[self.accelerator.mixed_precision],
            output_layer="embedding",
            workers=config.num_workers,
        )
        width: Any = network.embedding_dim
        share = -(-len(self.tracklets) // world)  # the last of some ranks are zeros, so that all have as many
        own, vectors, unreadable = self.tracklets[self.accelerator.process_index :: world], torch.zeros(share, width), 0
        if own:
            source, report = TrackletSource([replace(tracklet, name="") for tracklet in own]), SourceReport()
            parts, bar = [range(len(own))], progress_bar(0, False)
            ((kept, means),) = embedder.averages(source, parts, report, bar, skip_unreadable=config.skip_unreadable)
            unreadable = len(report.unreadable)
            if len(kept) < len(own):
                lost = own[min(set(range(len(own))).difference(kept))].name
                raise ValueError(f"tracklet {lost!r} must have a readable frame to be evaluated on, got none")
            vectors[: len(own)] = means
        if world > 1:
            lost_frames: Any = self.accelerator.reduce(torch.tensor(float(unreadable), device=device), reduction="sum")
            gathered: Any = self.accelerator.gather(vectors.to(device))
            vectors = gathered.view(world, share, width).transpose(0, 1).reshape(world * share, width).cpu()
            unreadable = int(lost_frames)
        return vectors[: len(self.tracklets)], unreadable


def as_json(result: RankingResult) -> dict[str, Any]:
    """Return what a run records of an evaluation; the ranks of the CMC are text, since JSON has no other keys."""
    names = ("mAP", "mINP", "num_queries", "num_valid_queries", "num_gallery", "ap")
    cmc = {str(rank): value for rank, value in result.cmc.items()}
    return {"cmc": cmc, **{name: getattr(result, name) for name in names}}


def _labels(tracklets: Sequence[Tracklet], name: str) -> list[int]:
    return [getattr(tracklet, name) for tracklet in tracklets]


def _distinct(tracklets: Sequence[Tracklet]) -> list[Tracklet]:
    """Return each tracklet once: official galleries hold the queries too."""
    return list({id(tracklet): tracklet for tracklet in tracklets}.values())
