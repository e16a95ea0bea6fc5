"""Time per frame and memory of LiveEmbedder: ``python -m tests.bench_live time`` or ``memory [FRAMES]``."""

import sys
import time
from pathlib import Path

import numpy as np

import nl3d
from tests.embedding.people import TinyNet

FRAME = np.random.default_rng(0).integers(0, 256, (576, 768, 3), dtype=np.uint8)


def boxes(count):
    return [[10 + 7 * place, 20 + 5 * place, 60 + 7 * place, 150 + 5 * place] for place in range(count)]


def measure_time(frames=150):
    """Updates at 25 frames per second with the bundled network; all tracks open, and fill clips, at once."""
    network = nl3d.resnet3d18_nl("bundled")
    for count in (1, 5, 10, 20, 40):
        live, times = nl3d.LiveEmbedder(network, order="bgr", coordinates="xyxy"), []
        for _ in range(frames):
            start = time.perf_counter()
            live.update(FRAME, boxes(count), range(count))
            times.append(1000 * (time.perf_counter() - start))
            time.sleep(max(0, 0.04 - times[-1] / 1000))
        counts = live.counts
        live.close(budget_ms=0)
        print(
            f"{count} tracks: median {np.median(times):.2f} ms, p99 {np.quantile(times, 0.99):.1f} ms, "
            f"longest {max(times):.1f} ms; waited {1000 * counts.longest_wait:.1f} ms at most; "
            f"{counts.clips} clips, {counts.skipped_clips} skipped"
        )


def measure_memory(frames):
    """Five open tracks, replaced every 20 frames; a trivial network; nothing skipped."""
    network = TinyNet()
    live = nl3d.LiveEmbedder(network, order="bgr", coordinates="xyxy", budget_ms=None)
    closed = 0
    for number in range(frames):
        ids = [number // 20 * 5 + place for place in range(5)]
        closed += len(live.update(FRAME, boxes(5), ids).closed)
        network.seen.clear()
        if number % (frames // 10) == 0 or number == frames - 1:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"frame {number + 1}: {pages * 4096 / 2**20:.1f} MiB, {closed} tracks closed", flush=True)
    live.close()


if __name__ == "__main__":
    if sys.argv[1] == "time":
        measure_time()
    else:
        measure_memory(int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
