"""``nl3d gallery``: a gallery in one file that is added to, asked and pruned daily."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.cli.boxes import add_box_options
from nl3d.cli.options import add_network_options, note, positive
from nl3d.cli.sets import load_sets

if TYPE_CHECKING:
    from nl3d.embedding.embeddings import Embeddings
    from nl3d.gallery.answers import Answer
    from nl3d.gallery.gallery import Gallery

DESCRIPTION = """\
Keep vectors with names, people, cameras, times and thumbnails in one file, DB. Several processes may use it at once.
nl3d gallery VERB --help shows the options of a verb."""

FILTERS = ("name", "person", "camera", "since", "until")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("gallery", help="people of many days and cameras in one file", description=DESCRIPTION)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    add = _verb(verbs, "add", _add, "add tracklets; DB is made if it does not exist")
    _add_source(add)
    add.add_argument("--camera", help="camera of the tracklets that have none")
    add.add_argument("--person", help="person of the tracklets that have none")
    add.add_argument("--start", metavar="TIME", help="time of frame 1, such as 2026-11-30T08:00:00Z; needs --fps")
    add.add_argument("--fps", type=float, metavar="RATE", help="frames per second; needs --start")
    add.add_argument("--prefix", default="", metavar="TEXT", help="put before every name; names in DB must differ")
    add.add_argument("--no-thumbnails", action="store_true", help="keep no pictures")

    find = _verb(verbs, "find", _find, "the tracklets nearest to each query")
    _add_source(find)
    _add_filters(find, "camera", "since", "until")
    find.add_argument("--top", type=positive, default=10, metavar="K", help="tracklets for each query (%(default)s)")
    find.add_argument("--metric", choices=("euclidean", "cosine"), help="euclidean, or that of the calibration")
    find.add_argument("--calibration", type=Path, metavar="FILE.json", help="the one that comes with the network")
    find.add_argument("--only", action="append", metavar="NAME", help="ask for this query tracklet; may be repeated")
    find.add_argument("--picture", type=Path, metavar="OUT.png", help="draw queries and thumbnails")
    find.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    _add_json(find)

    listed = _verb(verbs, "list", _list, "tracklets in the order in which they were added")
    _add_filters(listed, *FILTERS)
    listed.add_argument("--thumbnails", type=Path, metavar="FOLDER", help="write their thumbnails into a new folder")
    _add_json(listed)

    remove = _verb(verbs, "remove", _remove, "remove tracklets, so that no byte of them is left in DB")
    _add_filters(remove, "name", "person", "camera")

    prune = _verb(verbs, "prune", _prune, "remove tracklets by age, so that no byte of them is left in DB")
    prune.add_argument(
        "--older-than", required=True, metavar="AGE", help="last seen (or added, without times) longer ago; 30d, 12h"
    )
    _add_filters(prune, "camera")

    _verb(verbs, "optimize", _optimize, "rewrite DB, which becomes as small as it can be")
    _add_json(_verb(verbs, "stats", _stats, "counts, times and size"))


def _verb(verbs: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.add_argument("gallery", type=Path, metavar="DB", help="file of the gallery, such as people.gallery")
    parser.set_defaults(run=run)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="EMBEDDINGS", help="a file of embeddings, or what nl3d embed takes"
    )
    parser.add_argument("--tracks", type=Path, metavar="BOXES.txt", help="boxes, if EMBEDDINGS is a video")
    add_box_options(parser)
    add_network_options(parser)


def _add_filters(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        if name in ("since", "until"):
            word = "later" if name == "since" else "before"
            text = f"only what was seen at TIME or {word}: 2026-11-30T08:00:00Z, or 12h ago"
            parser.add_argument(f"--{name}", metavar="TIME", help=text)
        else:
            parser.add_argument(f"--{name}", action="append", help=f"only of this {name}; may be repeated")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _open(args: argparse.Namespace, *, create: bool = False) -> Gallery:
    from nl3d.gallery.gallery import Gallery

    return Gallery(args.gallery, create=create)


def _load(args: argparse.Namespace) -> Embeddings:
    (loaded,) = load_sets(args, [(args.source, args.tracks)])
    return loaded


def _chosen(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names}


def _print(values: Any) -> None:
    sys.stdout.write(json.dumps(values, indent=1) + "\n")


def _add(args: argparse.Namespace) -> None:
    from nl3d.gallery.store import check_gallery_path

    check_gallery_path(args.gallery, create=True)
    loaded = _load(args)
    with _open(args, create=True) as gallery:
        added = gallery.add(
            loaded, thumbnails=not args.no_thumbnails, **_chosen(args, "camera", "person", "start", "fps", "prefix")
        )
        sys.stdout.write(
            f"{args.gallery}: {added.tracklets} tracklets added with {added.thumbnails} thumbnails, "
            f"{len(gallery)} in all\n"
        )
    if added.note:
        note(added.note)


def _find(args: argparse.Namespace) -> None:
    from nl3d.files import PICTURES, check_output

    if args.picture:
        inputs = (args.source, args.tracks, args.gallery, args.calibration)
        check_output(args.picture, overwrite=args.overwrite, suffixes=PICTURES, inputs=inputs)
    with _open(args) as gallery:
        query = _load(args)
        query = query.select(args.only) if args.only else query
        chosen = _chosen(args, "top", "camera", "since", "until", "metric", "calibration")
        answer = gallery.find(query, **chosen)
        if args.picture:
            _draw(args, gallery, query, answer)
    if args.json:
        _print(answer.to_dict())
    else:
        sys.stdout.write(answer.table())


def _draw(args: argparse.Namespace, gallery: Gallery, query: Embeddings, answer: Answer) -> None:
    from nl3d.files import replacing
    from nl3d.gallery.answers import draw_answer
    from nl3d.retrieval.ranking import open_embedded

    names = {match.entry.name for matches in answer for match in matches.found}
    thumbnails = {name: jpeg for name in names if (jpeg := gallery.thumbnail(name)) is not None}
    frames = open_embedded(query, None, "source").middle_frames(query.names)
    image = draw_answer(answer, thumbnails, frames)
    with replacing(args.picture) as unfinished:
        image.save(unfinished)


def _list(args: argparse.Namespace) -> None:
    from nl3d.gallery.answers import HEADINGS, align

    with _open(args) as gallery:
        entries = gallery.list(**_chosen(args, *FILTERS))
        if args.thumbnails:
            args.thumbnails.mkdir()
            for number, entry in enumerate(entries, 1):
                if (jpeg := gallery.thumbnail(entry.name)) is not None:
                    (args.thumbnails / f"{number:06d}.jpg").write_bytes(jpeg)
    if args.json:
        _print([entry.to_dict() for entry in entries])
    else:
        sys.stdout.write("\n".join(align([HEADINGS, *(entry.cells() for entry in entries)])) + "\n")


def _remove(args: argparse.Namespace) -> None:
    with _open(args) as gallery:
        removed = gallery.remove(**_chosen(args, "name", "person", "camera"))
        sys.stdout.write(f"{args.gallery}: {removed} tracklets removed, {len(gallery)} left\n")


def _prune(args: argparse.Namespace) -> None:
    with _open(args) as gallery:
        removed = gallery.prune(args.older_than, camera=args.camera)
        sys.stdout.write(f"{args.gallery}: {removed} tracklets removed, {len(gallery)} left\n")


def _optimize(args: argparse.Namespace) -> None:
    with _open(args) as gallery:
        gallery.optimize()
        sys.stdout.write(f"{args.gallery}: {gallery.stats()['bytes']} bytes\n")


def _stats(args: argparse.Namespace) -> None:
    with _open(args) as gallery:
        stats = gallery.stats()
    if args.json:
        _print(stats)
    else:
        width = max(map(len, stats))
        sys.stdout.write("".join(f"{key.replace('_', ' '):<{width}}  {value}\n" for key, value in stats.items()))
