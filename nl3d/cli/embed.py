"""``nl3d embed``: one vector for each tracklet of a video or a folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.cli.options import add_network_options, build_model, embed_options, note

if TYPE_CHECKING:
    from nl3d.retrieval.embeddings import Embeddings

DESCRIPTION = """\
Embed every tracklet: nl3d embed VIDEO --tracks BOXES.txt --output OUT.safetensors, with boxes in MOTChallenge text
(frame,id,left,top,width,height,..., frames from 1), or nl3d embed FOLDER --output OUT.safetensors for a folder that
holds one folder of frames for each tracklet."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("embed", help="one vector for each tracklet", description=DESCRIPTION)
    parser.add_argument("source", type=Path, metavar="VIDEO|FOLDER", help="a video, or a folder of tracklet folders")
    parser.add_argument("--tracks", type=Path, metavar="BOXES.txt", help="boxes in the video, MOTChallenge text")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.safetensors", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.data.sources import open_source
    from nl3d.retrieval.embed import embed
    from nl3d.storage.files import check_output

    check_output(args.output, overwrite=args.overwrite)
    open_source(args.source, args.tracks)  # refuse bad input before a network is fetched
    result = embed(args.source, build_model(args), tracks=args.tracks, **embed_options(args))
    result.save(args.output, overwrite=args.overwrite)
    report(result)
    rows, width = result.embeddings.shape
    sys.stdout.write(
        f"{args.output}: {rows} tracklets, {width} numbers each "
        f"({result.metadata['output']} of {result.metadata['model']}, weights {result.metadata['weights']})\n"
    )


def report(result: Embeddings) -> None:
    """Say what became of boxes that did not lie in the frame."""
    notes = json.loads(result.metadata["notes"])
    if notes["clipped_boxes"]:
        note(f"{notes['clipped_boxes']} boxes reached outside the frame and were clipped")
    if notes["dropped_boxes"]:
        note(f"{notes['dropped_boxes']} boxes lay outside the frame altogether and were dropped")
    if notes["dropped_tracks"]:
        note(f"tracks without a box inside the frame were dropped: {', '.join(notes['dropped_tracks'])}")
