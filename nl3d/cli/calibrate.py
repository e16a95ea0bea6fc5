"""``nl3d calibrate``: what a distance says about two tracklets, from labelled ones."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nl3d.cli.options import note

DESCRIPTION = """\
Fit the probability that two tracklets show one person to labelled tracklets, and report what thresholds cost: equal
error rate, and the share of true pairs that pass at chosen shares of false ones. LABELLED are files of embeddings with
people, or with --labels. nl3d rank and nl3d identify read the output."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("calibrate", help="thresholds and probabilities from labels", description=DESCRIPTION)
    parser.add_argument("labelled", nargs="+", type=Path, metavar="LABELLED")
    parser.add_argument("--labels", type=Path, metavar="TABLE.csv", help="labels by name: tracklet, pid, camid")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.json", help="calibration to write")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw distances and ROC")
    parser.add_argument("--metric", choices=("euclidean", "cosine"), default="euclidean")
    parser.add_argument(
        "--keep-same-camera", action="store_true", help="count pairs under one camera although there are several"
    )
    parser.add_argument(
        "--false-accepts", nargs="+", type=share, metavar="SHARE", help="rates to report (0.1 0.01 0.001 0.0001)"
    )
    parser.add_argument(
        "--same-at", type=share, default=0.001, metavar="SHARE",
        help="share of pairs of two people that may be called the same (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--different-at", type=share, default=0.05, metavar="SHARE",
        help="share of pairs of one person that may be called different (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.files import PICTURES, check_output
    from nl3d.people.fit import FALSE_ACCEPTS, calibrate
    from nl3d.people.tracklets import gather_tracklets

    inputs = (*args.labelled, args.labels)
    check_output(args.output, overwrite=args.overwrite, inputs=inputs, suffixes=(".json",))
    if args.picture:
        check_output(args.picture, overwrite=args.overwrite, inputs=inputs, suffixes=PICTURES)
    tracklets = gather_tracklets(args.labelled, labels=args.labels)
    report = calibrate(
        tracklets,
        metric=args.metric,
        same_camera=args.keep_same_camera or None,
        false_accepts=args.false_accepts or FALSE_ACCEPTS,
        same_at=args.same_at,
        different_at=args.different_at,
        description=", ".join(path.name for path in args.labelled),
    )
    if args.picture:
        report.save_picture(args.picture, overwrite=args.overwrite)
    report.calibration.save(args.output, overwrite=args.overwrite)
    for text in tracklets.notes:
        note(text)
    sys.stdout.write((json.dumps(report.to_dict(), indent=1) if args.json else report.table()) + "\n")


def share(text: str) -> float:
    """Parse a share between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a share between 0 and 1, got {text!r}")
    return value
