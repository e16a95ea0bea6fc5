"""Sets of vectors that a command is given: files of embeddings, or what is embedded first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nl3d.cli.boxes import box_options
from nl3d.cli.embed import report
from nl3d.cli.options import build_model, embed_options

if TYPE_CHECKING:
    from nl3d.embedding.embeddings import Embeddings


def load_sets(args: argparse.Namespace, wanted: Sequence[tuple[Path, Path | None]]) -> list[Embeddings]:
    """Open or embed sets, each once.

    Args:
        args: Options of the network and of boxes.
        wanted: Path of each set, and its boxes if it is a video.
    """
    from nl3d.data.sources import open_source
    from nl3d.embedding.embed import embed
    from nl3d.embedding.embeddings import Embeddings
    from nl3d.embedding.vector_files import READERS

    wanted = [(path.resolve(), tracks) for path, tracks in wanted]
    sets: dict[tuple[Path, Path | None], Embeddings] = {}
    sources = []
    for path, tracks in dict.fromkeys(wanted):
        if tracks is None and path.suffix.lower() in READERS:
            sets[path, tracks] = Embeddings.open(path)
        else:
            open_source(path, tracks, boxes=box_options(args))  # refuse bad input before a network is fetched
            sources.append((path, tracks))
    model = build_model(args) if sources else None
    for path, tracks in sources:
        assert model is not None
        sets[path, tracks] = made = embed(path, model, tracks=tracks, boxes=box_options(args), **embed_options(args))
        report(made)
    return [sets[one] for one in wanted]
