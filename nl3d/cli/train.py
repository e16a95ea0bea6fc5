"""``nl3d train``: train a network, resume a killed run, or fine-tune."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.cli.options import note
from nl3d.training.config import add_options, config_from

if TYPE_CHECKING:
    from nl3d.training.config import TrainingConfig

DESCRIPTION = """\
Train a network in the folder --output. The same command resumes a run that was interrupted or killed. Several processes
train one network under torchrun --nproc-per-node N -m nl3d train ..., or on GPUs under accelerate launch -m nl3d train.
With --weights bundled, a run or an exported folder, a trained network is fine-tuned, on clips as it had them."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("train", help="train or fine-tune a network", description=DESCRIPTION)
    parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--all-splits", action="store_true", help="all splits, one after another, and their mean")
    parser.add_argument(
        "--board", action=argparse.BooleanOptionalAction, default=True, help="write for TensorBoard (default: on)"
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from nl3d.training.checkpoint import LAST
    from nl3d.training.networks import starting_options

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    config = config_from(args, defaults=starting_options(getattr(args, "weights", "none")))
    try:
        if args.all_splits:
            _train_all_splits(config, args)
        else:
            _train(config, args.output, args)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        saved = any(args.output.rglob(LAST))
        note(f"interrupted; the same command {'resumes from the last checkpoint' if saved else 'starts again'}")
        return 130
    return 0


def _train(config: TrainingConfig, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train one run and print its scores."""
    from nl3d.training.ranks import make_accelerator
    from nl3d.training.run import run_training

    accelerator = make_accelerator(config)
    result = run_training(config, folder, accelerator=accelerator, progress=sys.stderr.isatty(), board=args.board)
    if accelerator.is_main_process:
        sys.stdout.write(
            f"{result['dataset']}: rank-1 {100 * result['cmc']['1']:.1f} %, rank-5 {100 * result['cmc']['5']:.1f} %, "
            f"mAP {100 * result['mAP']:.1f} % ({result['ap']}), mINP {100 * result['mINP']:.1f} %, "
            f"{result['num_valid_queries']} of {result['num_queries']} queries, protocol {result['protocol']}\n"
        )
    return result


def _train_all_splits(config: TrainingConfig, args: argparse.Namespace) -> None:
    """Train all splits of iLIDS-VID or PRID2011, each in a folder of its own, and print their mean."""
    from dataclasses import replace

    from nl3d.data.readers.registry import READERS
    from nl3d.training.data import read_dataset
    from nl3d.training.ranks import make_accelerator
    from nl3d.training.summary import split_summary

    with_splits = [name for name, reader in READERS.items() if reader.splits]
    if config.dataset not in with_splits:
        raise ValueError(
            f"--all-splits needs a data set with splits, {' or '.join(with_splits)}, got {config.dataset!r}"
        )
    config = replace(config, split=0)
    results = [
        _train(replace(config, split=split), args.output / f"split-{split}", args)
        for split in range(read_dataset(config).num_splits)
    ]
    if make_accelerator(config).is_main_process:
        sys.stdout.write(f"{split_summary(results)}\n")
