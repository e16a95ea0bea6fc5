"""Options that say how to read a file of boxes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nl3d.data.readers.boxes import BoxOptions


def add_box_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :class:`nl3d.data.BoxOptions`."""
    from nl3d.data.readers.box_formats import FORMATS

    formats = "; ".join(f"{name} ({form.description})" for name, form in FORMATS.items())
    group = parser.add_argument_group("boxes")
    group.add_argument("--box-format", metavar="NAME", help=f"{formats}; detected from the file by default")
    group.add_argument(
        "--first-frame", type=int, metavar="N", help="number of the first frame in the boxes (1; 0 for KITTI and CVAT)"
    )
    group.add_argument(
        "--classes",
        metavar="A,B,...",
        help="classes to keep, by number or name, or all (people of ground truth, every class of others)",
    )
    group.add_argument(
        "--skip-bad-boxes",
        action="store_true",
        help="leave out and count rows that are no box of a track: id -1, no area, not finite",
    )


def box_options(args: argparse.Namespace) -> BoxOptions:
    """Return the options that were given."""
    from nl3d.data.readers.boxes import BoxOptions

    classes = None if args.classes is None else tuple(name.strip() for name in args.classes.split(","))
    return BoxOptions(args.box_format, args.first_frame, classes, args.skip_bad_boxes)
