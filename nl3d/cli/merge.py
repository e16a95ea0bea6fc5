"""``nl3d merge``: a tracker's fragments become longer tracks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.cli.boxes import add_box_options
from nl3d.cli.options import add_network_options, count
from nl3d.cli.sets import load_sets

if TYPE_CHECKING:
    from nl3d.data.readers.boxes import Boxes

DESCRIPTION = """\
Join the fragments of a tracker's tracks where they show one person, and write all boxes with the ids of the longer
tracks. Two tracks seen in the same frame are never joined. People who come back get their old id, unless --max-gap says
after how many frames they do not."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("merge", help="fragments of tracks to longer tracks", description=DESCRIPTION)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the video, or its embeddings (.safetensors, ...)")
    parser.add_argument("--tracks", type=Path, metavar="BOXES.txt", help="the tracker's boxes, if VIDEO is a video")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.txt", help="boxes to write (MOTChallenge)")
    parser.add_argument("--max-gap", type=count, metavar="N", help="frames out of sight within a track (any number)")
    parser.add_argument("--calibration", type=Path, metavar="FILE.json", help="of nl3d calibrate (the package's own)")
    parser.add_argument("--cut", type=float, metavar="DISTANCE", help="join up to this distance (chosen from the data)")
    parser.add_argument("--ground-truth", type=Path, metavar="GT.txt", help="print scores before and after (TrackEval)")
    parser.add_argument("--ground-truth-format", metavar="NAME", help="as --box-format, of the ground truth")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    add_box_options(parser)
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.files import check_output
    from nl3d.people.merge import merge
    from nl3d.people.tracking_scores import score_tracks
    from nl3d.retrieval.calibration import Calibration

    inputs = (args.video, args.tracks, args.ground_truth, args.calibration)
    check_output(args.output, overwrite=args.overwrite, suffixes=(".txt",), inputs=inputs)
    truth = _read_truth(args) if args.ground_truth else None
    calibration = Calibration.load(args.calibration) if args.calibration else None
    (embeddings,) = load_sets(args, [(args.video, args.tracks)])
    merged = merge(embeddings, max_gap=args.max_gap, calibration=calibration, cut=args.cut)
    merged.save(args.output, overwrite=args.overwrite)
    scores = {}
    if truth is not None:
        scores = {
            "before": score_tracks(merged.boxes, truth),
            "after": score_tracks(merged.boxes, truth, merged.numbers),
        }
    if args.json:
        told = {"tracks": dict(merged.numbers), **{when: score._asdict() for when, score in scores.items()}}
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return
    sys.stdout.write(f"{args.output}: {str(merged).removeprefix('Merged(').removesuffix(')')}\n")
    for when, score in scores.items():
        sys.stdout.write(f"{when:<6}  {score}\n")


def _read_truth(args: argparse.Namespace) -> Boxes:
    from nl3d.data.readers.boxes import BoxOptions, read_boxes

    try:
        return read_boxes(args.ground_truth, BoxOptions(args.ground_truth_format))
    except ValueError as error:
        raise ValueError(str(error).replace("--box-format", "--ground-truth-format")) from None
