"""The whole way on synthetic walkers: tracklets, embeddings, scores and a picture, without network and without data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nl3d.data.tracklets import Tracklet
from nl3d.embedding.embed import embed
from nl3d.embedding.network import seeded
from nl3d.metrics import RankingResult, evaluate
from nl3d.metrics.histogram import stripe_histogram
from nl3d.retrieval.rank import rank
from nl3d.retrieval.ranking import Ranking
from nl3d.walkers import WalkerTracklets, WalkerWorld
from nl3d.weights.factories import resnet3d18_nl

NUM_PEOPLE, NUM_FRAMES, STEP, SIZE = 16, 8, 8, (128, 64)
WORLD = 7  # seed of a world whose people the bundled network has never seen; it was trained on those of 0 and 1
DIFFICULTY, ALIKE = 0.4, 0.25  # milder than what networks are trained on, so that colours alone find some of them


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demonstration found.

    Attributes:
        tracklets: The synthetic tracklets, every person under three cameras; each is a query once.
        scores: Result by method, the bundled network first.
        ranking: The bundled network's ranking of all tracklets for one tracklet of each person.
    """

    tracklets: list[Tracklet]
    scores: dict[str, RankingResult]
    ranking: Ranking

    def table(self) -> str:
        """Give the scores as a table."""
        width = max(map(len, self.scores))
        lines = [f"{'':<{width}}  rank-1  rank-5     mAP"]
        for name, score in self.scores.items():
            cells = (f"{100 * value:5.1f} %" for value in (score.cmc[1], score.cmc[5], score.mAP))
            lines.append(f"{name:<{width}}  {' '.join(cells)}")
        return "\n".join(lines)


def run_demo(*, num_people: int = NUM_PEOPLE, progress: bool | None = None) -> Demo:
    """Film walkers, embed them with the bundled network, and score it beside an untrained one and a histogram."""
    world = WalkerWorld(
        seed=WORLD, num_identities=num_people, num_test=num_people, size=SIZE, difficulty=DIFFICULTY, alike=ALIKE
    )
    filmed = WalkerTracklets(world, "query", num_frames=NUM_FRAMES, step=STEP)
    tracklets = [
        Tracklet(frames, pid=pid, camid=camid, name=f"p{pid} cam{camid}")
        for frames, pid, camid in (filmed[place] for place in range(len(filmed)))
    ]
    bundled = resnet3d18_nl("bundled")
    untrained = seeded(partial(resnet3d18_nl, **bundled.hub_config()["model_args"]))
    clips = bundled.pretrained_cfg
    results = {
        name: embed(
            tracklets,
            network,
            num_frames=clips["num_frames"],
            frame_step=1,  # they were filmed at the network's own step
            size=clips["input_size"][1:],
            progress=progress,
        )
        for name, network in (("bundled network", bundled), ("untrained network", untrained))
    }
    scores = {name: _score(result.embeddings, tracklets) for name, result in results.items()}
    colours = torch.stack([stripe_histogram(torch.as_tensor(tracklet.frames)) for tracklet in tracklets])
    scores["colour histogram, six stripes"] = _score(colours, tracklets)
    shown = results["bundled network"]
    first = {
        pid: tracklet.name for pid, tracklet in zip(reversed(filmed.pids.tolist()), reversed(tracklets), strict=True)
    }
    order = sorted(first, key=lambda pid: (pid % world.group_size, pid))  # people of one group may be dressed alike
    return Demo(tracklets, scores, rank(shown, shown, top=8, names=[first[pid] for pid in order]))


def _score(vectors: Tensor, tracklets: Sequence[Tracklet]) -> RankingResult:
    pids = torch.tensor([tracklet.pid for tracklet in tracklets])
    camids = torch.tensor([tracklet.camid for tracklet in tracklets])
    return evaluate(vectors, vectors, pids, pids, camids, camids)
