"""``nl3d identify``: which tracklets of one or many cameras show one person."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.cli.options import note, positive

if TYPE_CHECKING:
    from nl3d.people.constraints import TravelTimes

DESCRIPTION = """\
Group tracklets into people: nl3d identify camera1.safetensors camera2.safetensors --output people.csv. Each file of
embeddings is one camera, unless it has labels of cameras. Two tracks seen in the same frame of one video are never one
person. The distance up to which tracklets are joined is chosen from the tracklets themselves, without labels."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("identify", help="which tracklets show one person", description=DESCRIPTION)
    parser.add_argument("embeddings", nargs="+", type=Path, metavar="EMBEDDINGS")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.csv", help="table to write, or OUT.json")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw one row per person with every visit")
    parser.add_argument("--rows", type=positive, default=50, metavar="N", help="people in the picture (%(default)s)")
    parser.add_argument(
        "--tracks-output", type=Path, metavar="OUT.txt|FOLDER",
        help="write the boxes with people's numbers in place of track ids; a folder for several files",
    )  # fmt: skip
    parser.add_argument("--known", nargs="+", type=Path, metavar="EMBEDDINGS", help="embeddings of people with names")
    parser.add_argument(
        "--travel-times", type=Path, metavar="TABLE.csv",
        help="camera_a,camera_b,min_seconds[,max_seconds]; with --frame-rate, and --start unless all start at once",
    )  # fmt: skip
    parser.add_argument("--frame-rate", type=float, metavar="FPS", help="frames per second of all videos")
    parser.add_argument(
        "--start", action="append", default=[], metavar="CAMERA=SECONDS",
        help="when the camera's first frame was taken, on a clock of all cameras (0); may be repeated",
    )  # fmt: skip
    parser.add_argument("--calibration", type=Path, metavar="FILE.json", help="of nl3d calibrate (the package's own)")
    parser.add_argument("--cut", type=float, metavar="DISTANCE", help="join up to this distance (chosen from the data)")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.files import PICTURES, check_output
    from nl3d.people.identities import identify
    from nl3d.people.outputs import TABLES, track_files
    from nl3d.people.tracklets import gather_tracklets
    from nl3d.retrieval.calibration import Calibration

    inputs = (*args.embeddings, *(args.known or ()), args.travel_times, args.calibration)
    check_output(args.output, overwrite=args.overwrite, inputs=inputs, suffixes=TABLES)
    if args.picture:
        check_output(args.picture, overwrite=args.overwrite, inputs=inputs, suffixes=PICTURES)
    if args.tracks_output:
        for file in track_files(gather_tracklets(args.embeddings), args.tracks_output):
            if file.parent.exists():
                check_output(file, overwrite=args.overwrite, inputs=inputs)
    found = identify(
        args.embeddings,
        known=args.known,
        travel_times=_travel_times(args),
        calibration=Calibration.load(args.calibration) if args.calibration else None,
        cut=args.cut,
    )
    for text in found.notes:
        note(text)
    found.save(args.output, overwrite=args.overwrite)
    if args.tracks_output:
        found.save_tracks(args.tracks_output, overwrite=args.overwrite)
    if args.picture:
        found.save_picture(args.picture, rows=args.rows, overwrite=args.overwrite)
        if len(found.people) > args.rows:
            note(f"the picture shows {args.rows} of {len(found.people)} people; see --rows")
    sys.stdout.write(f"{args.output}: {str(found).removeprefix('Identities(').removesuffix(')')}\n")


def _travel_times(args: argparse.Namespace) -> TravelTimes | None:
    from nl3d.people.constraints import read_travel_times

    if args.travel_times is None:
        if args.start or args.frame_rate is not None:
            raise ValueError("--start and --frame-rate must come with --travel-times, which they belong to")
        return None
    if args.frame_rate is None:
        raise ValueError("--travel-times must come with --frame-rate, frames per second of the videos")
    starts = {}
    for text in args.start:
        camera, _, seconds = text.rpartition("=")
        try:
            starts[camera] = float(seconds)
        except ValueError:
            camera = ""
        if not camera:
            raise ValueError(f"--start must be CAMERA=SECONDS, got {text!r}")
    return read_travel_times(args.travel_times, frame_rate=args.frame_rate, starts=starts)
