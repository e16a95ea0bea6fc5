"""``nl3d show-attention``: where a position of a clip attends to."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from nl3d.cli.boxes import add_box_options, box_options
from nl3d.cli.options import add_network_options, build_model, count

DESCRIPTION = """\
Draw where one position of a tracklet attends to in a non-local block, as in the paper's Figure 6. Print how sharply:
the largest weight, and the entropy as a share of that of equal weights."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "show-attention", help="where a position attends to, as a picture", description=DESCRIPTION
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="what nl3d embed takes")
    parser.add_argument("tracklet", metavar="TRACKLET", help="name of a tracklet")
    parser.add_argument("--tracks", type=Path, metavar="BOXES.txt", help="boxes, if SOURCE is a video")
    parser.add_argument(
        "--at",
        type=_position,
        required=True,
        metavar="T,Y,X",
        help="frame, row and column in the clip, from 0, in pixels",
    )
    parser.add_argument("--clip", type=count, default=0, metavar="N", help="which clip of the tracklet, from 0")
    parser.add_argument("--block", help="layer3.5 for the block after that residual block (the last one)")
    parser.add_argument(
        "--kind", choices=("arrows", "heat"), default="arrows", help="arrows to the strongest, or a map"
    )
    parser.add_argument("--top", type=count, default=10, metavar="K", help="arrows, at most (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.png", help="picture to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    add_box_options(parser)
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.data.clips.processor import ClipProcessor
    from nl3d.data.sources import open_source
    from nl3d.files import PICTURES, check_output, replacing
    from nl3d.viz import attention

    inputs = (args.source, args.tracks)
    check_output(args.output, overwrite=args.overwrite, suffixes=PICTURES, inputs=inputs)
    source = open_source(args.source, args.tracks, boxes=box_options(args))
    names = [record.name for record in source.records]
    if args.tracklet not in names:
        some = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ValueError(f"tracklet must be one of the source, got {args.tracklet!r}; choose from: {some}")
    model = build_model(args)
    processor = ClipProcessor.of(model, num_frames=args.num_frames, frame_step=args.frame_step, size=args.size)
    clip = processor.normalise(_read_clip(source, names.index(args.tracklet), args.clip, processor).transpose(0, 1))
    found = attention(model, clip, args.at, args.block)
    with replacing(args.output) as unfinished:
        found.draw(args.kind, top=args.top).save(unfinished)
    sys.stdout.write(f"{found}\n")
    for place, weight in found.strongest(min(args.top, 5)):
        sys.stdout.write(f"  {weight:.3f} at {','.join(map(str, place))}\n")
    sys.stdout.write(f"{args.output}\n")


def _read_clip(source: Any, row: int, wanted: int, processor: Any) -> Any:
    """Read one clip ``(T, 3, H, W)`` uint8 of a tracklet, on the way that embedding takes."""
    from nl3d.data.tracklet_source import TrackletSource

    parts = [range(row, row + 1)] if isinstance(source, TrackletSource) else [range(len(source.records))]
    number = 0
    for batch in source.batches(parts, processor, 1):
        for of, images in zip(batch.rows, batch.images, strict=True):
            if of == row and number == wanted:
                return images
            number += of == row
    raise ValueError(f"clip must be below the {number} of the tracklet, got {wanted}")


def _position(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"must be frame,row,column from 0, such as 0,40,20, got {text!r}")
    t, y, x = map(int, parts)
    return t, y, x
