"""Reading a large table and joining parts, without a network: python -m tests.bench_shards [TRACKLETS WIDTH SUFFIX]."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from nl3d.embedding.embeddings import Embeddings
from nl3d.embedding.sharing.parts import Part, PartFolder
from nl3d.embedding.sharing.shards import Share, open_share

PER_PART = 1024


def peak():
    """Largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Measure:
    def __init__(self, what):
        self.memory, self.start, self.what = peak(), time.process_time(), what

    def __enter__(self):
        return self

    def __exit__(self, *_):
        print(f"{self.what}: {time.process_time() - self.start:.1f} s, {peak() - self.memory:.0f} MiB more")


def main(count=200_000, width=512, suffix=".safetensors"):
    count, width = int(count), int(width)
    with tempfile.TemporaryDirectory() as name:
        table = Path(name, "people.csv")
        rows = (f"frames/{i // 1000:04d}/{i:07d}.jpg,{i // 20},{i % 6},t{i:07d}\n" for i in range(count))
        with table.open("w") as file:
            file.write("path,pid,camid,tracklet\n")
            file.writelines(rows)
        parts = [range(start, min(start + PER_PART, count)) for start in range(0, count, PER_PART)]
        with Measure(f"finding {count} tracklets of {table.stat().st_size / 2**20:.0f} MiB"):
            source = open_share(table, Share(), check_files=False)
        with Measure(f"reading one of 64 shares, {len(parts[::64])} parts"):
            for part in parts[::64]:
                for row in part:
                    source.record(row)
        folder = PartFolder(Path(name, f"people{suffix}"), {}, {}, len(parts))
        folder.open()
        with Measure(f"reading all tracklets and writing {len(parts)} parts"):
            for number, part in enumerate(parts):
                folder.write(number, Part.of(source, part, [*part], torch.randn(len(part), width), []))
        with Measure(f"joining them to {suffix}"):
            folder.join()
        with Measure("opening the output"):
            assert len(Embeddings.open(folder.output)) == count


if __name__ == "__main__":
    main(*sys.argv[1:])
