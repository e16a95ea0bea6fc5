"""``nl3d demo``: the whole way on synthetic walkers, without network and without data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

PICTURE = Path("nl3d-demo.png")
DESCRIPTION = """\
Film synthetic walkers, print how well the bundled network finds each of them again under other cameras, beside an
untrained network and a colour histogram, and draw a ranking. Needs neither network nor data, and less than a minute on
two cores."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("demo", help="try it out, without network and data", description=DESCRIPTION)
    parser.add_argument(
        "--picture", type=Path, default=PICTURE, metavar="OUT.png", help="ranking to draw (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.files import PICTURES, check_output
    from nl3d.retrieval.demo import run_demo

    overwrite = args.overwrite or args.picture == PICTURE  # the demo's own file may be made anew
    check_output(args.picture, overwrite=overwrite, suffixes=PICTURES)
    sys.stderr.write("nl3d: filming synthetic walkers, then looking for each of them under the other cameras\n")
    demo = run_demo()
    people = len({tracklet.pid for tracklet in demo.tracklets})
    cameras = len({tracklet.camid for tracklet in demo.tracklets})
    sys.stdout.write(
        f"{len(demo.tracklets)} tracklets of {people} people under {cameras} cameras\n\n{demo.table()}\n\n"
    )
    demo.ranking.save_picture(
        args.picture, query_source=demo.tracklets, gallery_source=demo.tracklets, rows=6, overwrite=overwrite
    )
    sys.stdout.write(
        f"{args.picture}: the ranking of six of them, a tick where it is the same person; some are dressed alike\n"
    )
