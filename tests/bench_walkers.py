"""How fast walkers are rendered, what a colour histogram makes of them, and what trained networks do.

Not collected by pytest.

OMP_NUM_THREADS=1 python -m tests.bench_walkers speed
OMP_NUM_THREADS=1 python -m tests.bench_walkers histogram
OMP_NUM_THREADS=1 python -m tests.bench_walkers runs runs/small2/resnet3d/seed-*
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from nl3d.metrics import evaluate, pairwise_distance
from nl3d.metrics.histogram import stripe_histogram
from nl3d.training.config import read_config
from nl3d.training.data import read_dataset
from nl3d.training.evaluation import Evaluation
from nl3d.training.load import load_run
from nl3d.training.run import make_accelerator
from nl3d.training.summary import mean_and_deviation
from nl3d.walkers import WalkerTracklets, WalkerWorld

WORLD_OPTIONS = {item.name for item in dataclasses.fields(WalkerWorld)}
WORLDS = ({}, {"seed": 1}, {"alike": 0.0}, {"difficulty": 0.0}, {"difficulty": 0.5}, {"difficulty": 2.0})


def speed() -> None:
    """Frames per second of processor time, by size, frames a call, and difficulty."""
    for size in ((64, 32), (128, 64), (256, 128)):
        for num_frames, step in ((1, 1), (8, 8), (64, 1)):
            rates = []
            for difficulty in (0.0, 1.0, 2.0):
                world = WalkerWorld(size=size, difficulty=difficulty)
                for camid in range(6):
                    world.tracklet(0, camid, 0, num_frames=1)  # the street is drawn once
                calls = max(8, 240 // num_frames)
                start = time.process_time()
                for call in range(calls):
                    world.tracklet(call * 3 % 400, call % 6, call // 6, num_frames=num_frames, step=step)
                rates.append(round(calls * num_frames / (time.process_time() - start)))
            print(f"{size[0]}x{size[1]}, {num_frames} frames a call: {rates} frames/s at difficulty 0, 1, 2")


def histogram() -> None:
    """Rank-1 and mAP across cameras, and rank-1 among people dressed alike, beside chance."""
    for changes in WORLDS:
        world = WalkerWorld(**changes)  # type: ignore[arg-type]
        query = WalkerTracklets(world, "query", num_frames=8, step=8)
        gallery = WalkerTracklets(world, "gallery", num_frames=8, step=8)
        embeddings = torch.stack([stripe_histogram(gallery[place][0]) for place in range(len(gallery))])
        places = {key: place for place, key in enumerate(gallery.keys)}
        queries = embeddings[[places[key] for key in query.keys]]
        labels = (query.pids, gallery.pids, query.camids, gallery.camids)
        result = evaluate(queries, embeddings, *labels)
        groups = [world.group_of(pid) for pid in gallery.pids.tolist()]
        within, chance, *_ = within_groups(torch.tensor(groups), labels, pairwise_distance(queries, embeddings))
        print(f"{changes}: rank-1 {result.cmc[1]:.3f}, mAP {result.mAP:.3f}; dressed alike {within:.3f}, {chance:.3f}")


def runs(folders: list[Path]) -> None:
    """Rank-1 of trained networks, of it what clothes decide and what is left to motion; mean and deviation."""
    scores = []
    for folder in folders:
        config = read_config(folder / "config.json")
        dataset = read_dataset(config)
        evaluation = Evaluation(dataset, config, make_accelerator(config))
        rows, _ = evaluation.embed(load_run(folder))
        query, gallery = rows[evaluation.query_rows], rows[evaluation.gallery_rows]
        labels = tuple(
            torch.tensor([getattr(tracklet, name) for tracklet in part])
            for name in ("pid", "camid")
            for part in (dataset.query, evaluation.gallery)
        )
        world = WalkerWorld(**{name: value for name, value in config.data_args.items() if name in WORLD_OPTIONS})
        groups = torch.tensor([world.group_of(pid) for pid in labels[1].tolist()])
        rank1 = evaluate(query, gallery, *labels, metric=config.metric).cmc[1]
        scores.append((rank1, *within_groups(groups, labels, pairwise_distance(query, gallery, metric=config.metric))))
    names = ("rank-1", "dressed alike: rank-1", "chance", "first one is dressed alike", "dressed like nobody: rank-1")
    print(", ".join(f"{name} {mean_and_deviation([100 * value for value in column])} %"
                    for name, column in zip(names, zip(*scores, strict=True), strict=True)))  # fmt: skip


def within_groups(
    groups: torch.Tensor, labels: Sequence[torch.Tensor], distmat: torch.Tensor
) -> tuple[float, float, float, float]:
    """Take the queries of people dressed like others, and the gallery rows under other cameras than theirs.

    Args:
        groups: Group of each gallery row; people of one are dressed alike.
        labels: Pids of queries and gallery, camids of queries and gallery.
        distmat: Distances.

    Returns:
        Share of queries whose nearest row among those dressed alike is the right person, the same of guesses, share of
        queries whose nearest row of all is dressed alike; and of all other queries the share whose nearest is right.
    """
    q_pids, g_pids, q_camids, g_camids = labels
    hits, guesses, clothes, alone = [], [], [], []
    for distances, pid, camid in zip(distmat, q_pids, q_camids, strict=True):
        own = groups[g_pids == pid][0]
        elsewhere = g_camids != camid
        rows = (groups == own) & elsewhere
        pids = g_pids[rows]
        if (pids == pid).any() and (pids != pid).any():
            hits.append(float(pids[distances[rows].argmin()] == pid))
            guesses.append(float((pids == pid).float().mean()))
            clothes.append(float(groups[elsewhere][distances[elsewhere].argmin()] == own))
        else:
            alone.append(float(g_pids[elsewhere][distances[elsewhere].argmin()] == pid))
    hit, guess, dressed, single = (sum(values) / max(1, len(values)) for values in (hits, guesses, clothes, alone))
    return hit, guess, dressed, single


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "histogram", "runs"])
    parser.add_argument("folders", nargs="*", type=Path, help="of runs")
    arguments = parser.parse_args()
    if arguments.what == "runs":
        runs(arguments.folders)
    else:
        {"speed": speed, "histogram": histogram}[arguments.what]()
