"""``nl3d list``: the models and their weights."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("list", help="models and weights", description="List models and their weights.")
    parser.add_argument("--model", metavar="NAME", help="only this model's weights")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    import nl3d

    rows = [("MODEL", "WEIGHTS", "CLIP", "STEP", "LICENCE", "WHERE")]
    packaged = [name for spec in nl3d.list_weights() if spec.package for name in spec.models]
    for model in [*nl3d.list_models(), *packaged] if args.model is None else [args.model]:
        specs = nl3d.list_weights(model)
        for spec in specs:
            clip = "x".join(map(str, spec.clip_size))
            rows.append((model, spec.name, clip, str(spec.frame_step), spec.license, spec.where))
        if not specs:
            rows.append((model, "-", "", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
