"""Memory over many tracklets: ``python -m tests.soak [--tracklets N]``.

Embeds a table of N tracklets by the path of ``nl3d embed``, reads the resident memory at every batch, and prints by
how many bytes it grows per tracklet over the second half. More than a kilobyte is an error: a million tracklets would
then take a gigabyte more than their vectors.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import nl3d
from tests.data.pictures import write_jpeg
from tests.embedding.people import TinyNet

LARGEST_SLOPE = 1000.0  # bytes per tracklet


class WatchedNet(TinyNet):
    """Notes the resident memory at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.clips = 0
        self.memory: list[tuple[int, int]] = []

    def forward(self, clips: torch.Tensor) -> nl3d.ReIDOutput:
        self.clips += len(clips)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append((self.clips, pages * resource.getpagesize()))
        output = super().forward(clips)
        self.seen.clear()
        return output


def slope(tracklets: int) -> float:
    """Bytes of resident memory per tracklet, over the second half of a run."""
    torch.set_num_threads(1)
    network = WatchedNet().eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(16):
            write_jpeg(folder / "frames" / f"{number}.jpg", (15 * number, 90, 30), (128, 64))
        rows = [f"frames/{(t + f) % 16}.jpg,{t % 100},{t % 6},t{t},{f}" for t in range(tracklets) for f in range(4)]
        (folder / "table.csv").write_text("\n".join(["path,pid,camid,tracklet,frame", *rows]) + "\n")
        nl3d.embed_to_file(folder / "table.csv", network, folder / "out.safetensors", progress=False)
    clips, memory = np.array(network.memory, dtype=np.float64).T
    late = clips > clips[-1] / 2
    return float(np.polyfit(clips[late], memory[late], 1)[0])


def main() -> int:
    """Run the command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=2000)
    arguments = parser.parse_args()
    found = slope(arguments.tracklets)
    sys.stdout.write(f"{arguments.tracklets} tracklets: {found:.0f} bytes of resident memory per tracklet\n")
    return 1 if found > LARGEST_SLOPE else 0


if __name__ == "__main__":
    sys.exit(main())
