r"""Table 3 of the paper (initial weights of ResNet3D-50 NL), one row per command, on any data set.

One row on MARS, then the table of the finished rows; ReID takes the checkpoint of a network trained on images:

    accelerate launch examples/table3.py --row imagenet --dataset mars --root MARS --output runs/table3
    accelerate launch examples/table3.py --row reid --weights duke.safetensors --dataset mars --root MARS \
        --output runs/table3
    python examples/table3.py --output runs/table3

In small, on walkers, each row first trains the network it starts from, on people of another world: `reid` trains the
image network on stills and inflates it, `kinetics` trains the 3D network on clips. In small there is no row `imagenet`.

    python examples/table3.py --row reid --network small --dataset walkers --seeds 0 1 2 --output runs/small3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tables import SMALL, Row, main

from nl3d.training.config import config_from
from nl3d.training.run import run_training

OTHER_WORLD = 1000  # seed of the walkers to start from; the runs' own have 0

ROWS = {
    "scratch": Row("Scratch", {}, real={"weights": "none"}),
    "imagenet": Row(
        "ImageNet",
        {"rank-1": 78.4, "rank-5": 91.5, "rank-10": 93.9, "mAP": 69.8},
        real={"weights": "imagenet"},
    ),
    "reid": Row(
        "ReID",
        {"rank-1": 79.9, "rank-5": 92.6, "rank-10": 94.5, "mAP": 71.3},
        real={"weights": "reid"},
        small_label="ReID (here: stills of other walkers)",
    ),
    "kinetics": Row(
        "Kinetics",
        {"rank-1": 84.3, "rank-5": 94.6, "rank-10": 96.2, "mAP": 77.0},
        real={"weights": "kinetics"},
        small_label="Kinetics (here: clips of other walkers)",
    ),
}


def changes(arguments: argparse.Namespace, row: Row) -> dict[str, object]:
    """Return the options in which a row differs from the recipe; in small, first train the network it starts from."""
    if arguments.network != "small":
        return {"model": "resnet3d50_nl", **row.real}
    shared = {**SMALL, "model": "small_3d_nl"}
    if row is ROWS["imagenet"]:
        raise ValueError(
            "row must be scratch, reid or kinetics with --network small: no ImageNet weights of that network exist"
        )
    if row is ROWS["scratch"]:
        return shared
    if arguments.dataset != "walkers":
        raise ValueError(f"dataset must be walkers to make weights to start from, got {arguments.dataset!r}")
    return {**shared, **pretrained(arguments, still=row is ROWS["reid"])}


def pretrained(arguments: argparse.Namespace, *, still: bool) -> dict[str, object]:
    """Train on another world, on stills or on clips, once for all seeds."""
    run = Path(arguments.output) / ("start-reid" if still else "start-kinetics")
    world = {**getattr(arguments, "data_args", {}), "seed": OTHER_WORLD}
    network = {"model": "small_tp", "num_frames": 1} if still else {"model": "small_3d_nl"}
    given = {name: value for name, value in vars(arguments).items() if name in SMALL}
    config = config_from(arguments, **{**SMALL, **given, **network, "data_args": world, "seed": 0})
    run_training(config, run, progress=sys.stderr.isatty())
    return {"inflate_from" if still else "weights": str(run)}


if __name__ == "__main__":
    sys.exit(main(__doc__, ROWS, changes))
