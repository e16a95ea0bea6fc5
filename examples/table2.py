"""Table 2 of the paper (component analysis), one row per command, on any data set, and Fig. 1's other aggregations.

One row on MARS, then the table of the finished rows:

    accelerate launch examples/table2.py --row resnet3d_nl --dataset mars --root MARS --output runs/table2
    python examples/table2.py --output runs/table2

In small, on walkers, without any file; three seeds of one row, each resumable:

    python examples/table2.py --row resnet3d_nl --network small --dataset walkers --seeds 0 1 2 --output runs/small2
"""

from __future__ import annotations

import argparse
import sys

from tables import SMALL, Row, main

# 2D rows start from ImageNet, 3D rows from Kinetics, as in the paper; --weights overrides it.
ROWS = {
    "baseline": Row(
        "Baseline (2D, mean over time)",
        {"rank-1": 77.9, "rank-5": 90.0, "rank-10": 92.5, "mAP": 69.0},
        real={"model": "resnet50_tp", "weights": "imagenet"},
        small={"model": "small_tp"},
    ),
    "rnn": Row(
        "RNN (2D, LSTM)",
        {},
        real={"model": "resnet50_rnn", "weights": "imagenet"},
        small={"model": "small_rnn"},
    ),
    "attention": Row(
        "Temporal attention (2D)",
        {},
        real={"model": "resnet50_ta", "weights": "imagenet"},
        small={"model": "small_ta"},
    ),
    "resnet3d": Row(
        "ResNet3D",
        {"rank-1": 80.0, "rank-5": 92.2, "rank-10": 94.5, "mAP": 72.6},
        real={"model": "resnet3d50", "weights": "kinetics"},
        small={"model": "small_3d"},
    ),
    "resnet3d_nl": Row(
        "ResNet3D NL",
        {"rank-1": 84.3, "rank-5": 94.6, "rank-10": 96.2, "mAP": 77.0},
        real={"model": "resnet3d50_nl", "weights": "kinetics"},
        small={"model": "small_3d_nl"},
    ),
}


def changes(arguments: argparse.Namespace, row: Row) -> dict[str, object]:
    """Return the options in which a row differs from the recipe."""
    return {**SMALL, **row.small} if arguments.network == "small" else dict(row.real)


if __name__ == "__main__":
    sys.exit(main(__doc__, ROWS, changes))
