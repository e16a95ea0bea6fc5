"""Speed of PyAV and TorchCodec on one video, in one run: python tests/bench_video.py VIDEO [--rounds 5].

Each frame is decoded to RGB in order, as nl3d.embed needs them. The two take turns and the best round of each counts:
frames a second, which use every core that is free, and milliseconds of processor time a frame, which do not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from nl3d.data.frames.video import VideoFrames


def by_pyav(path: str) -> int:
    """Decode with the library's own reader."""
    frames, last = VideoFrames(path), count_frames(path)
    return sum(1 for _ in frames.read(range(1, last + 1)))


def by_torchcodec(path: str) -> int:
    """Decode with TorchCodec, frame by frame, which is as fast as by slices."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=0, seek_mode="approximate")
    return sum(1 for place in range(len(decoder)) if decoder[place] is not None)


def count_frames(path: str) -> int:
    """Count packets."""
    import av

    with av.open(path) as container:
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


def main() -> None:
    """Print the best of some rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    readers: dict[str, Callable[[str], int]] = {"PyAV": by_pyav, "TorchCodec": by_torchcodec}
    rates, costs = dict.fromkeys(readers, 0.0), dict.fromkeys(readers, float("inf"))
    for _ in range(args.rounds):
        for name, reader in readers.items():
            start, used = time.perf_counter(), time.process_time()
            count = reader(args.video)
            rates[name] = max(rates[name], count / (time.perf_counter() - start))
            costs[name] = min(costs[name], (time.process_time() - used) / count)
    for name in readers:
        print(f"{name}: {rates[name]:.0f} frames/s, {1000 * costs[name]:.2f} ms of processor time a frame")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
