r"""Train a network for video person re-identification, on one process or, by ``accelerate launch``, on many.

The paper's recipe on MARS, on eight GPUs; the same command goes on where it was killed:

    accelerate launch --num_processes 8 examples/train.py --dataset mars --root MARS --output runs/mars

Fine-tuning on the ten splits of iLIDS-VID (Sec. 4.4.2):

    accelerate launch examples/train.py --dataset ilids-vid --root iLIDS --init-from runs/mars --all-splits \
        --output runs/ilids

The same in small, without any file, on the CPU:

    python examples/train.py --dataset walkers --model small_3d_nl --height 64 --width 32 --num-pids 16 --epochs 60 \
        --output runs/walkers
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from nl3d.training.config import TrainingConfig
from nl3d.training.data import WITH_SPLITS, read_dataset
from nl3d.training.loop import NotFiniteError
from nl3d.training.options import add_options, config_from
from nl3d.training.ranks import make_accelerator
from nl3d.training.run import run_training
from nl3d.training.tables import split_summary


def main() -> int:
    """Run the command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the run; a killed run in it goes on")
    parser.add_argument("--all-splits", action="store_true", help="all splits one after the other, and their mean")
    parser.add_argument("--board", action=argparse.BooleanOptionalAction, default=True, help="write for TensorBoard")
    add_options(parser)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if arguments.all_splits:
            return train_all_splits(arguments)
        train(config_from(arguments), arguments.output, board=arguments.board)
    except (ValueError, TypeError, OSError, ModuleNotFoundError, NotFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train(config: TrainingConfig, output: Path, *, board: bool) -> dict[str, Any]:
    """Train one run and print its result."""
    accelerator = make_accelerator(config)
    result = run_training(config, output, accelerator=accelerator, progress=sys.stderr.isatty(), board=board)
    accelerator.print(
        f"{result['dataset']}: rank-1 {100 * result['cmc']['1']:.1f} %, rank-5 {100 * result['cmc']['5']:.1f} %, "
        f"mAP {100 * result['mAP']:.1f} % ({result['ap']}), mINP {100 * result['mINP']:.1f} %, "
        f"{result['num_valid_queries']} of {result['num_queries']} queries, protocol {result['protocol']}"
    )
    return result


def train_all_splits(arguments: argparse.Namespace) -> int:
    """Train all splits of iLIDS-VID or PRID2011, each in a folder of its own, and print their mean."""
    config = config_from(arguments, split=0)
    if config.dataset not in WITH_SPLITS:
        raise ValueError(f"all_splits needs a data set with splits, {' or '.join(WITH_SPLITS)}, got {config.dataset!r}")
    results = [
        train(replace(config, split=split), arguments.output / f"split-{split}", board=arguments.board)
        for split in range(read_dataset(config).num_splits)
    ]
    make_accelerator(config).print(split_summary(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
