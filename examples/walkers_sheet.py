"""Draw a contact sheet of synthetic walkers, to see what a world looks like.

    python examples/walkers_sheet.py sheet.png
    python examples/walkers_sheet.py heavy.png --difficulty 2
    python examples/walkers_sheet.py gait.png --group

Rows are people, blocks of columns are cameras, and each block holds some frames of one tracklet. With ``--group`` the
people are one group dressed alike, seen by one camera: what differs from row to row is how they walk.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torchvision.io import write_png

from nl3d.walkers import WalkerWorld


def main() -> None:
    """Draw the sheet that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--difficulty", type=float, default=1.0, help="0 clean, 1 default, 2 heavy")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--frames", type=int, default=3, help="frames of each tracklet")
    parser.add_argument("--step", type=int, default=8, help="frames from one shown to the next")
    parser.add_argument("--height", type=int, default=128, help="of a frame, pixels; the width is half of it")
    parser.add_argument("--group", action="store_true", help="one group dressed alike under one camera, 18 frames each")
    args = parser.parse_args()

    size = (args.height, args.height // 2)
    world = WalkerWorld(seed=args.seed, size=size, difficulty=args.difficulty, num_cameras=args.cameras)
    if args.group:
        group = next(pid for pid in range(world.num_identities) if world.group_of(pid) != pid) - 1
        sideways = max(range(args.cameras), key=lambda camid: abs(math.sin(world.camera(camid).yaw)))
        pids, camids, num_frames, step = range(group, group + world.group_size), [sideways], 18, 2
    else:
        pids, camids = range(0, world.group_size * args.people, world.group_size), range(args.cameras)
        num_frames, step = args.frames, args.step
    rows = []
    for pid in pids:
        tracklets = [world.tracklet(pid, camid, 0, num_frames=num_frames, step=step) for camid in camids]
        rows.append(torch.cat([frame for tracklet in tracklets for frame in tracklet], 2))
    write_png(torch.cat(rows, 1), str(args.output))
    print(f"wrote {args.output}: {len(pids)} people, {len(camids)} cameras, {num_frames} frames each")


if __name__ == "__main__":
    main()
