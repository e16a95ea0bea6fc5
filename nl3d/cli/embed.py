"""``nl3d embed``: one vector for each tracklet of a video or a folder."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.cli.boxes import add_box_options, box_options
from nl3d.cli.options import add_network_options, build_model, embed_options, note, positive

if TYPE_CHECKING:
    from nl3d.embedding.embeddings import Embeddings
    from nl3d.embedding.sharing.shards import Share

DESCRIPTION = """\
Embed every tracklet: nl3d embed VIDEO --tracks BOXES.txt --output OUT.safetensors, with boxes in MOTChallenge text
(frame,id,left,top,width,height,..., frames from 1); nl3d embed FOLDER --output OUT.safetensors for a folder that holds
one folder of frames for each tracklet; or nl3d embed TABLE.csv --output OUT.safetensors for a table of frames with a
column path and, as known, tracklet, pid and camid. Folders and tables may be shared by many processes, torchrun
--nproc_per_node 8 -m nl3d embed TABLE.csv ..., and the same command resumes after an interruption."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("embed", help="one vector for each tracklet", description=DESCRIPTION)
    parser.add_argument(
        "source",
        type=Path,
        metavar="VIDEO|FOLDER|TABLE.csv",
        help="a video, a folder of tracklet folders, or a table of frames",
    )
    parser.add_argument("--tracks", type=Path, metavar="BOXES.txt", help="boxes in the video")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.safetensors", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="replace a frame that does not decode by the nearest of its clip, or leave out its boxes, and report it",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray embeds a table or a folder on the cluster of RAY_ADDRESS, or on all cores or GPUs of this machine",
    )
    parser.add_argument(
        "--actors", type=positive, metavar="N", help="with --engine ray: how many embed at once (one per GPU or core)"
    )
    add_box_options(parser)
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.embedding.sharing.shards import Share

    share = Share.from_environment()
    if args.engine == "ray" and (args.tracks is not None or share.world > 1):
        raise ValueError(
            "engine must be local for a video, which is decoded in order by one process, and under torchrun, got ray; "
            "give it a table or a folder, from one process"
        )
    if args.actors is not None and args.engine != "ray":
        raise ValueError(f"actors must be left out without --engine ray, got {args.actors}")
    if args.tracks is None:
        _run_share(args, share)
    elif share.world > 1:
        raise ValueError(
            f"tracks must be left out for {share.world} processes, since a video is decoded in order by one; "
            "run nl3d embed by itself, once for each video"
        )
    else:
        _run_video(args)


def _run_video(args: argparse.Namespace) -> None:
    from nl3d.data.sources import open_source
    from nl3d.embedding.embed import embed
    from nl3d.embedding.vector_files import SUFFIXES
    from nl3d.files import check_output

    check_output(args.output, overwrite=args.overwrite, inputs=(args.source, args.tracks), suffixes=SUFFIXES)
    source = open_source(
        args.source, args.tracks, boxes=box_options(args)
    )  # refuse bad input before a network is fetched
    result = embed(source, build_model(args), skip_unreadable=args.skip_unreadable, **embed_options(args))
    result.save(args.output, overwrite=args.overwrite)
    report(result)
    rows, width = result.embeddings.shape
    sys.stdout.write(
        f"{args.output}: {rows} tracklets, {width} numbers each "
        f"({result.metadata['output']} of {result.metadata['model']}, weights {result.metadata['weights']})\n"
    )


def _run_share(args: argparse.Namespace, share: Share) -> None:
    from nl3d.embedding.sharing.parts import OtherRunError, part_folder
    from nl3d.embedding.sharing.shards import check_embed_output, embed_to_file, open_share

    check_embed_output(args.output, overwrite=args.overwrite, inputs=(args.source,))
    source = open_share(args.source, share, check_files=not args.skip_unreadable)
    model = build_model(args)
    options = {"overwrite": args.overwrite, "skip_unreadable": args.skip_unreadable, **embed_options(args)}
    try:
        if args.engine == "ray":
            from nl3d.embedding.sharing.ray_engine import embed_on_ray

            outcome = embed_on_ray(source, model, args.output, actors=args.actors, **options)
        else:
            outcome = embed_to_file(source, model, args.output, share=share, **options)
    except OtherRunError:
        raise
    except BaseException:
        if part_folder(args.output).is_dir():
            note(f"finished parts are kept in {part_folder(args.output)}; the same command goes on from there")
        raise
    for message in outcome.unreadable:
        note(f"skipped: {message}")
    for name in outcome.dropped:
        note(f"dropped, since no frame of it can be read: tracklet {name}")
    if outcome.missing and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun would end the others if one failed
        raise ChildProcessError(f"process {share.rank} of {share.world}: {outcome.text}")
    if outcome.joined:
        sys.stdout.write(f"{outcome.text}\n")
    else:
        note(f"process {share.rank} of {share.world}: {outcome.text}" if share.world > 1 else outcome.text)


def report(result: Embeddings) -> None:
    """Say what became of boxes that did not lie in the frame."""
    notes = json.loads(result.metadata["notes"])
    for reason, count in notes.get("left_out_boxes", {}).items():
        note(f"{count} boxes were left out: {reason}")
    if notes.get("box_classes"):
        counts = ", ".join(f"{count} of {label}" for label, count in notes["box_classes"].items())
        note(f"the boxes are of several classes, all kept: {counts}; --classes chooses")
    if notes["clipped_boxes"]:
        note(f"{notes['clipped_boxes']} boxes reached outside the frame and were clipped")
    if notes["dropped_boxes"]:
        note(f"{notes['dropped_boxes']} boxes lay outside the frame altogether and were dropped")
    if notes["dropped_tracks"]:
        note(f"tracks without a box inside the frame were dropped: {', '.join(notes['dropped_tracks'])}")
    if notes["unreadable_frames"]:
        note(f"{notes['unreadable_frames']} frames could not be read; others of their clips took their places, if any")
