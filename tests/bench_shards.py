"""Reading a large table and joining parts, without a network: python -m tests.bench_shards [TRACKLETS WIDTH]."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from nl3d.embedding.sharing.parts import PartFolder, source_digest
from nl3d.embedding.sharing.shards import Share, open_share

PER_PART = 1024


def peak():
    """Largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(count=200_000, width=512):
    with tempfile.TemporaryDirectory() as name:
        table = Path(name, "people.csv")
        rows = (f"frames/{i // 1000:04d}/{i:07d}.jpg,{i // 20},{i % 6},t{i:07d}\n" for i in range(count))
        with table.open("w") as file:
            file.write("path,pid,camid,tracklet\n")
            file.writelines(rows)
        memory, start = peak(), time.process_time()
        source = open_share(table, Share(), check_files=False)
        print(f"reading {count} tracklets: {time.process_time() - start:.1f} s, {peak() - memory:.0f} MiB")
        start = time.process_time()
        digest = source_digest(source.tracklets, source.records)
        print(f"digest: {time.process_time() - start:.1f} s")
        folder = PartFolder(Path(name, "people.safetensors"), {"tracklets": digest}, -(-count // PER_PART))
        folder.open()
        for number in folder.missing():
            part = range(number * PER_PART, min(count, (number + 1) * PER_PART))
            folder.write(number, part, torch.randn(len(part), width), 0)
        memory, start = peak(), time.process_time()
        folder.join(source.records, [1] * count, {})
        size = folder.output.stat().st_size / 2**20
        print(f"joining {folder.count} parts to {size:.0f} MiB: {time.process_time() - start:.1f} s, ", end="")
        print(f"{peak() - memory:.0f} MiB more")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
