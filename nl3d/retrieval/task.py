"""What a ranking has to do: two sets that fit each other, and which of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nl3d.embedding.embeddings import Embeddings, require_made_alike
from nl3d.embedding.stored import Vectors, all_vectors, rows_named, width_of
from nl3d.metrics.distance import Metric
from nl3d.retrieval.search.index import GalleryIndex


@dataclass(frozen=True, eq=False)
class Task:
    """What a ranking has to do, found to be possible.

    Args:
        query: The queries, without those that are not asked for.
        vectors: Their vectors.
        gallery: Where they are searched for.
        own: Row of each query in the gallery if that holds them, else None.
        count: Rows to find for each query.
        metric: How distances are measured.
    """

    query: Vectors
    vectors: Tensor
    gallery: Vectors
    own: Tensor | None
    count: int
    metric: Metric


def prepare(
    query: Vectors | str | Path,
    gallery: Vectors | GalleryIndex | str | Path,
    *,
    top: int,
    metric: Metric | None,
    names: Sequence[str] | None,
) -> Task:
    """Read and check the arguments of :func:`rank`."""
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    if metric not in (None, "euclidean", "cosine"):
        raise ValueError(f"metric must be one of 'euclidean', 'cosine', got {metric!r}")
    if isinstance(gallery, GalleryIndex):
        if metric not in (None, gallery.metric):
            raise ValueError(f"metric must be that of the index, {gallery.metric!r}, got {metric!r}")
        metric, gallery = gallery.metric, gallery.gallery
    query = Path(query) if isinstance(query, str) else query
    gallery = Path(gallery) if isinstance(gallery, str) else gallery
    same = query is gallery or _same_file(query, gallery)
    if same:
        query = gallery = Embeddings.load(gallery) if isinstance(gallery, Path) else gallery
    query = Embeddings.load(query) if isinstance(query, Path) else query
    gallery = Embeddings.load(gallery) if isinstance(gallery, Path) else gallery
    _check_comparable(query, gallery)
    query = query if names is None else query.select(names)
    own = rows_named(gallery, query.names) if same else None
    count = min(top, len(gallery) - (own is not None))
    if count < 1:
        raise ValueError(f"gallery must hold a tracklet besides the query, got {len(gallery)} in all")
    return Task(query, all_vectors(query), gallery, own, count, metric or "euclidean")


def _same_file(first: Vectors | Path, second: Vectors | Path) -> bool:
    one, other = (path if isinstance(path, Path) else getattr(path, "path", None) for path in (first, second))
    return one is not None and other is not None and one.exists() and other.exists() and one.samefile(other)


def _check_comparable(query: Vectors, gallery: Vectors) -> None:
    if width_of(query) != width_of(gallery):
        raise ValueError(
            "query and gallery must be of one width, embedded by the same network, "
            f"got {width_of(query)} and {width_of(gallery)}"
        )
    require_made_alike(query.metadata, gallery.metadata)
