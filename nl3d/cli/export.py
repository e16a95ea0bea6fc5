"""``nl3d export``: a run as a folder of weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Write the network of a run, without the classifier of its training people, into a folder: weights, config.json and model
card. nl3d embed --weights FOLDER, nl3d.from_pretrained and timm read it."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("export", help="a run as a folder of weights", description=DESCRIPTION)
    parser.add_argument("training_run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("output", type=Path, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--which", choices=("last", "best"), default="last", help="weights of which epoch (%(default)s)"
    )
    parser.add_argument("--half", action="store_true", help="float16, in half of the bytes")
    parser.add_argument("--license", default="other", help="SPDX identifier of the weights' licence (%(default)s)")
    parser.add_argument("--description", default="", help="what the weights were trained on")
    parser.add_argument("--overwrite", action="store_true", help="replace weights that are in the folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.training.export import export_run

    about = {name: value for name in ("license", "description") if (value := getattr(args, name))}
    size = export_run(args.training_run, args.output, args.which, half=args.half, overwrite=args.overwrite, **about)
    sys.stdout.write(f"{args.output}: {size / 1e6:.1f} MB\n")
