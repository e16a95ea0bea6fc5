"""How fast walkers are rendered, and what a colour histogram makes of them; not collected by pytest.

OMP_NUM_THREADS=1 python -m tests.bench_walkers speed
OMP_NUM_THREADS=1 python -m tests.bench_walkers histogram
"""

from __future__ import annotations

import argparse
import time

import torch

from nl3d.data.walkers import WalkerTracklets, WalkerWorld
from nl3d.metrics import evaluate, pairwise_distance
from nl3d.metrics.histogram import stripe_histogram

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
        within, chance = within_groups(world, query, gallery, pairwise_distance(queries, embeddings))
        print(f"{changes}: rank-1 {result.cmc[1]:.3f}, mAP {result.mAP:.3f}; dressed alike {within:.3f}, {chance:.3f}")


def within_groups(
    world: WalkerWorld, query: WalkerTracklets, gallery: WalkerTracklets, distmat: torch.Tensor
) -> tuple[float, float]:
    """Rank-1 among the gallery rows dressed like the query, under other cameras; and what guessing gives."""
    groups = torch.tensor([world.group_of(pid) for pid in gallery.pids.tolist()])
    hits, guesses = [], []
    for distances, key in zip(distmat, query.keys, strict=True):
        rows = (groups == world.group_of(key.pid)) & (gallery.camids != key.camid)
        pids = gallery.pids[rows]
        if (pids == key.pid).any() and (pids != key.pid).any():
            hits.append(float(pids[distances[rows].argmin()] == key.pid))
            guesses.append(float((pids == key.pid).float().mean()))
    return sum(hits) / max(1, len(hits)), sum(guesses) / max(1, len(guesses))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "histogram"])
    {"speed": speed, "histogram": histogram}[parser.parse_args().what]()
