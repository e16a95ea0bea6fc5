"""Options of ``nl3d rank`` about the index of a gallery, and the index that they describe."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl3d.cli.options import note, positive

if TYPE_CHECKING:
    from nl3d.embedding.embeddings import Embeddings
    from nl3d.retrieval.ranking import Ranking
    from nl3d.retrieval.search.index import GalleryIndex

BUILD = ("nlist", "pq_bytes", "hnsw_m", "ef_construction")
EFFORT = ("candidates", "nprobe", "ef_search")
RECALL_QUERIES = 100


def add_index_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("index", "for large galleries; needs pip install 'nl3d[search]'")
    group.add_argument("--index", choices=("exact", "faiss"), default="exact", help="how to search (%(default)s)")
    group.add_argument(
        "--index-kind",
        choices=("flat", "hnsw", "ivfpq"),
        help="every tracklet, a graph, or codes in lists (flat up to 100000 tracklets, then ivfpq)",
    )
    group.add_argument(
        "--index-file", type=Path, metavar="FILE", help="use this index, or write it if it does not exist"
    )
    group.add_argument("--rebuild-index", action="store_true", default=None, help="replace --index-file")
    group.add_argument(
        "--recall-queries", type=_whole, metavar="N", help=f"compare N queries with the exact answer ({RECALL_QUERIES})"
    )
    group.add_argument(
        "--candidates", type=positive, metavar="N", help="proposals that are measured (four times --top)"
    )
    group.add_argument("--nprobe", type=positive, metavar="N", help="ivfpq: lists to search (one in 16)")
    group.add_argument("--ef-search", type=positive, metavar="N", help="hnsw: candidates kept while searching (128)")
    group.add_argument("--nlist", type=positive, metavar="N", help="ivfpq: lists (twice the gallery's square root)")
    group.add_argument("--pq-bytes", type=positive, metavar="N", help="ivfpq: bytes per tracklet (at most 64)")
    group.add_argument("--hnsw-m", type=positive, metavar="M", help="hnsw: links per tracklet (32)")
    group.add_argument("--ef-construction", type=positive, metavar="N", help="hnsw: as ef-search, when built (80)")


def check_index_options(args: argparse.Namespace, inputs: Iterable[Path | None]) -> None:
    """Refuse options that do not fit each other, and an index file that must not be written, before any work."""
    if args.index != "faiss":
        for name in ("index_kind", "index_file", "rebuild_index", "recall_queries", *BUILD, *EFFORT):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is an option of the index; add --index faiss")
        return
    from nl3d.files import check_output
    from nl3d.retrieval.search.index import import_faiss, is_index

    import_faiss()
    if args.recall_queries is None:
        args.recall_queries = RECALL_QUERIES
    if args.index_file is None and args.rebuild_index:
        raise ValueError("--rebuild-index needs the --index-file to replace")
    if args.index_file is not None and (args.rebuild_index or not args.index_file.exists()):
        check_output(args.index_file, overwrite=True, inputs=inputs)
        if args.index_file.exists() and not is_index(args.index_file):
            raise ValueError(
                f"index file {str(args.index_file)!r} must be an index that nl3d wrote, to be replaced; "
                "delete it, or choose another name"
            )


def open_index(args: argparse.Namespace, gallery: Embeddings) -> GalleryIndex:
    """Open the index file, or build the index and write that file."""
    from nl3d.retrieval.search.index import GalleryIndex
    from nl3d.retrieval.search.settings import IndexSettings, refuse_foreign

    settings = IndexSettings(kind=args.index_kind, **{name: getattr(args, name) for name in BUILD})
    started = time.perf_counter()
    if args.index_file is not None and args.index_file.exists() and not args.rebuild_index:
        index = GalleryIndex.open(args.index_file, gallery)
        wanted: dict[str, Any] = {**settings.given(), "metric": args.metric or index.metric}
        built = {**index.settings.given(), "metric": index.metric}
        for name, value in wanted.items():
            if built.get(name) != value:
                raise ValueError(
                    f"index file {str(args.index_file)!r} was built with {name} {built.get(name)}, got {value}; "
                    "leave the option out, or add --rebuild-index"
                )
        done = "opened"
    else:
        settings = settings.resolved(*gallery.shape)
        refuse_foreign(settings.kind, nprobe=args.nprobe, ef_search=args.ef_search)  # before the long part
        index = GalleryIndex.build(gallery, settings, metric=args.metric or "euclidean")
        if args.index_file is not None:
            index.save(args.index_file, overwrite=True)
        done = "built"
    index.set_effort(**{name: getattr(args, name) for name in EFFORT})
    note(f"index {index.settings} of {len(gallery)} tracklets {done} in {time.perf_counter() - started:.3g} s")
    return index


def note_short(ranking: Ranking, index: GalleryIndex) -> None:
    """Report for how many queries the index found too few."""
    short = int((ranking.indices < 0).any(dim=1).sum())
    if short:
        option = {"ivfpq": "--nprobe", "hnsw": "--ef-search", "flat": "--candidates"}[index.settings.kind or "flat"]
        note(f"{short} of {len(ranking)} queries got fewer than {ranking.indices.shape[1]}; raise {option}")


def _whole(text: str) -> int:
    return 0 if text == "0" else positive(text)
