"""Memory, time and recall of an index: ``python -m tests.bench_index [--rows N] [--kinds flat hnsw ivfpq]``.

Draws a gallery of people, twenty tracklets each, and queries of them; builds each kind of index, and searches it beside
the exact answer, each step in a process of its own, so that the peak is that of this step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from nl3d.embedding.embeddings import Embeddings
from nl3d.retrieval.recall import measure_recall
from nl3d.retrieval.search.index import GalleryIndex
from nl3d.retrieval.search.settings import IndexSettings

PER_PERSON = 20
LATENT = 64  # directions in which people differ, of a network's many


def draw(rows, width, folder):
    """Write a gallery and a thousand queries, whose vectors vary about their person's in few directions."""
    generator = torch.Generator().manual_seed(0)
    people = torch.randn(max(1, rows // PER_PERSON), LATENT, generator=generator)
    spread = torch.randn(LATENT, width, generator=generator) / LATENT**0.5
    for name, count in (("gallery", rows), ("query", 1000)):
        vectors = torch.empty(count, width)
        for start in range(0, count, 65536):
            some = torch.randint(len(people), (min(65536, count - start),), generator=generator)
            latent = people[some] + 0.7 * torch.randn(len(some), LATENT, generator=generator)
            noise = 0.05 * torch.randn(len(some), width, generator=generator)
            vectors[start : start + len(some)] = latent @ spread + noise
        ranges = torch.ones(count, 2, dtype=torch.int64)
        names = tuple(f"{name}{row}" for row in range(count))
        Embeddings(vectors, torch.arange(count), ranges, names).save(folder / f"{name}.safetensors")


def megabytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 2**10


def step(what, kind, rows, width, folder):
    if what == "draw":
        return draw(rows, width, folder)
    gallery = Embeddings.open(folder / "gallery.safetensors")
    before = megabytes("VmHWM")
    path = folder / f"{kind}.faiss"
    if what == "build":
        started = time.process_time()
        index = GalleryIndex.build(gallery, IndexSettings(kind=kind))
        index.save(path)
        seconds, size = time.process_time() - started, path.stat().st_size / 2**20
        told = f"{index.settings}: built in {seconds:.0f} s of processor time, {size:.0f} MiB"
    else:
        started = time.perf_counter()
        index = GalleryIndex.open(path, gallery)
        opened = time.perf_counter() - started
        index.search(torch.zeros(1, width), 10)  # what is done once
        query = Embeddings.open(folder / "query.safetensors")
        told = f"{kind}: opened in {opened:.2f} s, {measure_recall(query, index, sample=500)}"
    print(f"{told}; peak {megabytes('VmHWM') - before:.0f} MiB above {before:.0f}, of it now mapped "
          f"{megabytes('RssFile'):.0f}", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", default=["flat", "ivfpq"])
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        what, kind, folder = options.step
        return step(what, kind, options.rows, options.width, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        steps = [("draw", "-"), *((what, kind) for kind in options.kinds for what in ("build", "search"))]
        for what, kind in steps:
            sizes = ["--rows", str(options.rows), "--width", str(options.width)]
            call = [sys.executable, "-m", "tests.bench_index", *sizes, "--step", what, kind, folder]
            subprocess.run(call, check=True)


if __name__ == "__main__":
    main()
