"""Frames per second of the clip loader beside a loader by Pillow, in one run: ``python -m tests.bench_loader``."""

import argparse
import platform
import random
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from nl3d.data.clips.dataset import ClipDataset
from nl3d.data.clips.processor import IMAGENET_MEAN, IMAGENET_STD
from nl3d.data.clips.sampling import sample_clips
from nl3d.data.clips.transforms import ClipTransform
from nl3d.data.frames.images import decode_image, decode_with_pillow, encode_jpeg
from nl3d.data.tracklets import Tracklet
from nl3d.walkers import WalkerWorld

SIZE = (256, 128)  # what the paper takes, and of what size MARS's files are


class PillowClips(Dataset):
    """The same clips, as video re-identification code usually loads them: frame by frame, by Pillow, in floats."""

    def __init__(self, tracklets):
        self.tracklets = tracklets
        self.mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD).view(3, 1, 1)

    def __len__(self):
        return len(self.tracklets)

    def __getitem__(self, index):
        frames = self.tracklets[index].frames
        generator = torch.Generator().manual_seed(random.getrandbits(60))
        (places,) = sample_clips(len(frames), 8, generator=generator)
        height, width = round(SIZE[0] * 1.125), round(SIZE[1] * 1.125)
        top, left = random.randint(0, height - SIZE[0]), random.randint(0, width - SIZE[1])
        flip = random.random() < 0.5
        clip = []
        for place in places:
            image = Image.open(frames[place]).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
            image = image.crop((left, top, left + SIZE[1], top + SIZE[0]))
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
            tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
            clip.append((tensor - self.mean) / self.std)
        return torch.stack(clip, 1), self.tracklets[index].pid


def write_tracklets(folder, count, length):
    world = WalkerWorld(size=SIZE)
    tracklets, size = [], 0
    for pid in range(count):
        own = Path(folder, str(pid))
        own.mkdir()
        for number, frame in enumerate(world.tracklet(pid, world.cameras_of(pid)[0], 0, num_frames=length)):
            data = encode_jpeg(frame, quality=90)
            size += len(data)
            (own / f"{number:03d}.jpg").write_bytes(data)
        tracklets.append(Tracklet(sorted(own.iterdir()), pid=pid, camid=0))
    return tracklets, size / (count * length)


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracklets", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1, help="of the DataLoader rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tracklets, size = write_tracklets(folder, options.tracklets, options.length)
        files = [path.read_bytes() for tracklet in tracklets for path in tracklet.frames[::8]]
        floats = ClipDataset(tracklets, training=True)
        bytes_ = ClipDataset(tracklets, training=True, transform=ClipTransform(training=True, normalise=False))
        pillow = PillowClips(tracklets)

        def through_loader(clips):
            return DataLoader(clips, batch_size=8, num_workers=options.workers, persistent_workers=True)

        loaders = {"nl3d, uint8": through_loader(bytes_), "Pillow": through_loader(pillow)}
        # name: (work, frames in it)
        works = {
            "decode: nl3d": (lambda: [decode_image(data) for data in files], len(files)),
            "decode: Pillow": (lambda: [decode_with_pillow(data) for data in files], len(files)),
            "clips: nl3d, uint8": (lambda: [bytes_[index] for index in range(len(bytes_))], 8 * len(bytes_)),
            "clips: nl3d, float32": (lambda: [floats[index] for index in range(len(floats))], 8 * len(floats)),
            "clips: Pillow": (lambda: [pillow[index] for index in range(len(pillow))], 8 * len(pillow)),
        }
        for name, loader in loaders.items():
            works[f"DataLoader, {options.workers} worker(s): {name}"] = (
                lambda loader=loader: list(loader),
                8 * len(pillow),
            )
        rates = {name: [] for name in works}
        for number in range(options.rounds + 1):  # by turns, so that a busy moment hits all alike; the first warms up
            for name, (work, frames) in works.items():
                rate = frames / seconds(work)
                if number:
                    rates[name].append(rate)

    def known(name):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"no {name}"

    print(", ".join(map(known, ("torch", "torchvision", "torchcodec", "Pillow"))), platform.machine())
    print(f"{options.tracklets} tracklets of {options.length} JPEG files of {SIZE}, {size:.0f} bytes on average")
    print(f"frames/s, median (lowest to highest) of {options.rounds} rounds")
    for name, values in rates.items():
        values.sort()
        print(f"  {name:35s} {values[len(values) // 2]:8.0f} ({values[0]:.0f} to {values[-1]:.0f})")


if __name__ == "__main__":
    main()
