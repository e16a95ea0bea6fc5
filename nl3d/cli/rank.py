"""``nl3d rank``: the gallery tracklets nearest to each query."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nl3d.cli.boxes import add_box_options
from nl3d.cli.index import add_index_options, check_index_options, note_short, open_index
from nl3d.cli.options import add_network_options, note, positive
from nl3d.cli.sets import load_sets

DESCRIPTION = """\
Rank the gallery for each query. QUERY and GALLERY are files of embeddings (.safetensors, .npz, .npy, .pt), or what
nl3d embed takes, which is then embedded first. If both are the same, each query is left out of its own ranking."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("rank", help="the nearest gallery tracklets of each query", description=DESCRIPTION)
    parser.add_argument("query", type=Path, metavar="QUERY")
    parser.add_argument("gallery", type=Path, metavar="GALLERY")
    parser.add_argument("--query-tracks", type=Path, metavar="BOXES.txt", help="boxes, if QUERY is a video")
    parser.add_argument("--gallery-tracks", type=Path, metavar="BOXES.txt", help="boxes, if GALLERY is a video")
    parser.add_argument("--top", type=positive, default=10, metavar="K", help="tracklets for each query (%(default)s)")
    parser.add_argument("--metric", choices=("euclidean", "cosine"), help="euclidean, or that of --index-file")
    parser.add_argument("--only", action="append", metavar="NAME", help="rank for this query tracklet; may be repeated")
    parser.add_argument("--labels", type=Path, metavar="TABLE.csv", help="mark matches by this table of labels")
    parser.add_argument("--calibration", type=Path, metavar="FILE.json", help="the one that comes with the network")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw the ranked tracklets")
    parser.add_argument("--rows", type=positive, default=10, metavar="N", help="queries in the picture (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    add_index_options(parser)
    add_box_options(parser)
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from nl3d.files import PICTURES, check_output
    from nl3d.retrieval.rank import rank
    from nl3d.retrieval.recall import measure_recall

    inputs = (args.query, args.gallery, args.query_tracks, args.gallery_tracks, args.labels, args.calibration)
    if args.picture:
        check_output(args.picture, overwrite=args.overwrite, suffixes=PICTURES, inputs=(*inputs, args.index_file))
    check_index_options(args, inputs)
    query, gallery = load_sets(args, [(args.query, args.query_tracks), (args.gallery, args.gallery_tracks)])
    index = open_index(args, gallery) if args.index == "faiss" else None
    options = {name: getattr(args, name) for name in ("top", "metric", "labels", "calibration")}
    ranking = rank(query, index or gallery, names=args.only, **options)
    result = ranking.to_dict() if args.json else {}
    if index is not None:
        note_short(ranking, index)
        result["index"] = index.settings.given()
        if args.recall_queries:
            recall = measure_recall(query, index, top=args.top, names=args.only, sample=args.recall_queries)
            note(str(recall))
            result["index"] |= recall._asdict()
    if args.picture:
        ranking.save_picture(args.picture, rows=args.rows, overwrite=args.overwrite)
        if len(ranking.query) > args.rows:
            note(f"the picture shows the first {args.rows} of {len(ranking.query)} queries; see --rows and --only")
    if args.json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        sys.stdout.write(ranking.table())
