"""Time and memory of the evaluation: ``python -m tests.bench_metrics WHAT [--width D] [--device DEVICE]``.

``mars`` times :func:`nl3d.metrics.evaluate` at 1,980 x 11,310 beside the bare matrix product, in turns; ``large`` gives
time and peak memory at 11,659 x 82,161; ``rerank`` and ``large-rerank`` do so for re-ranking at these sizes. Run one a
process: the peak is that of the process.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch

from nl3d.metrics import KReciprocal, evaluate

SIZES = {"mars": (1980, 11310, 627), "large": (11659, 82161, 3060), "rerank": (1980, 11310, 627)}
SIZES["large-rerank"] = SIZES["large"]


def draw(num_query, num_gallery, num_pids, width, device):
    """Embeddings with some of their identity in them, in the proportions of MARS: 3 of 11 gallery rows distract."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(num_pids, width, generator=generator)
    q_pids = torch.randint(1, num_pids, (num_query,), generator=generator)
    g_pids = torch.randint(1, num_pids, (num_gallery,), generator=generator)
    g_pids[torch.rand(num_gallery, generator=generator) < 0.29] = 0
    embeddings = [0.5 * centres[p] + torch.randn(len(p), width, generator=generator) for p in (q_pids, g_pids)]
    camids = [torch.randint(0, 6, (len(p),), generator=generator) for p in (q_pids, g_pids)]
    return [values.to(device) for values in (*embeddings, q_pids, g_pids, *camids)]


def seconds(call):
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=SIZES)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    inputs = draw(*SIZES[options.what], options.width, options.device)
    print(f"{options.what}: {tuple(inputs[0].shape)} x {tuple(inputs[1].shape)}, {torch.get_num_threads()} threads")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    if options.what == "mars":
        products, evaluations = [], []
        for _ in range(options.rounds + 1):  # the first round warms up
            products.append(seconds(lambda: inputs[0] @ inputs[1].T))
            evaluations.append(seconds(lambda: evaluate(*inputs)))
        ratios = [b / a for a, b in zip(products[1:], evaluations[1:], strict=True)]
        print(f"product {statistics.median(products[1:]):.3f} s, evaluate {statistics.median(evaluations[1:]):.3f} s")
        print(f"ratio: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")
        print(f"of the medians: {statistics.median(evaluations[1:]) / statistics.median(products[1:]):.2f}")
    else:
        rerank = KReciprocal() if "rerank" in options.what else None
        print(f"evaluate {seconds(lambda: evaluate(*inputs, rerank=rerank)):.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak resident memory {peak:.0f} MiB, of which {before:.0f} MiB before the evaluation")


if __name__ == "__main__":
    main()
