"""How long ``nl3d identify`` takes, how much memory, and how well it does on vectors of made-up people.

OMP_NUM_THREADS=2 python -m tests.bench_people 100000
"""

import resource
import sys
import time

import torch

import nl3d
from tests.people.sets import crowd

VISITS, WIDTH = 10, 512


def pairwise_f1(found, people):
    """Pairwise F1 of two groupings, from counts, without a matrix of pairs."""
    groups = torch.as_tensor(found), torch.tensor([int(name[1:]) for name in people])
    both = torch.unique(torch.stack(groups, 1), dim=0, return_counts=True)[1]
    same, one, other = ((n * (n - 1) // 2).sum().item() for n in (both, *(torch.bincount(g) for g in groups)))
    return 2 * same / max(one + other, 1)


def main(count):
    """Print one line."""
    people = crowd(count // VISITS, VISITS, spread=0.35, width=WIDTH)
    start = time.perf_counter()
    found = nl3d.identify(people)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    score = pairwise_f1(found.numbers, people.people)
    print(f"{len(found)} tracklets, {len(found.people)} people: {seconds:.0f} s, {memory:.2f} GiB, F1 {score:.4f}")
    return score


if __name__ == "__main__":
    main(int(sys.argv[1]))
