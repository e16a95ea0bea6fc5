"""Rank the gallery tracklets by their distance to each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from nl3d.embedding.embeddings import Embeddings, require_same_maker
from nl3d.metrics.distance import Metric
from nl3d.retrieval.ranking import Ranking
from nl3d.retrieval.scoring.labelled import are_comparable, people_from_table
from nl3d.retrieval.search.index import GalleryIndex
from nl3d.retrieval.search.nearest import nearest


@dataclass(frozen=True, eq=False)
class Task:
    """Checked inputs of one ranking.

    Args:
        query: The queries that are asked for.
        gallery: Where they are searched for.
        own: Row of each query in the gallery if that holds them, else None.
        count: Rows to find for each query.
        metric: How distances are measured.
        people: Labels of query and gallery, if they can be compared.
    """

    query: Embeddings
    gallery: Embeddings
    own: Tensor | None
    count: int
    metric: Metric
    people: tuple[Sequence[str | None], Sequence[str | None]] | None

    @cached_property
    def vectors(self) -> Tensor:
        """Vectors of the queries."""
        return self.query.embeddings


def rank(
    query: Embeddings | str | Path,
    gallery: Embeddings | GalleryIndex | str | Path,
    *,
    top: int = 10,
    metric: Metric | None = None,
    names: Sequence[str] | None = None,
    labels: str | Path | None = None,
) -> Ranking:
    """Rank the tracklets of a gallery by their distance to each query.

    If query and gallery are the same object or the same file, each query is left out of its own ranking. Tracklets at
    equal distance stand in the order of the gallery.

    Args:
        query: Embeddings, or a file of them.
        gallery: The same, or an index, which may miss some of the nearest.
        top: Gallery tracklets per query, at most.
        metric: ``"euclidean"``, or ``"cosine"`` for one minus the cosine; an index's own, else Euclidean, if left out.
        names: Query tracklets to rank for; all, if left out.
        labels: Table of labels (``.csv``) by which matches are marked, as for ``nl3d evaluate``; the labels of the
            embeddings, if left out.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the two were made by different networks, there is nothing to rank, or the table of labels names
            no tracklet of them.

    Example:
        >>> people = nl3d.Embeddings(torch.tensor([[0.0], [1.0], [5.0]]), names=("a", "b", "c"))
        >>> rank(people, people, top=1).indices.flatten().tolist()
        [1, 0, 1]
    """
    task = prepare(query, gallery, top=top, metric=metric, names=names, labels=labels)
    if isinstance(gallery, GalleryIndex):
        distances, indices = gallery.search(task.vectors, task.count, own=task.own)
    else:
        distances, indices = nearest(task.vectors, task.gallery, task.count, metric=task.metric, own=task.own)
    return Ranking(task.query, task.gallery, indices, distances, task.metric, task.people)


def prepare(
    query: Embeddings | str | Path,
    gallery: Embeddings | GalleryIndex | str | Path,
    *,
    top: int,
    metric: Metric | None,
    names: Sequence[str] | None,
    labels: str | Path | None = None,
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
    query = query if isinstance(query, Embeddings) else Embeddings.open(query)
    gallery = gallery if isinstance(gallery, Embeddings) else Embeddings.open(gallery)
    same = query is gallery or (
        query.path is not None and gallery.path is not None and query.path.samefile(gallery.path)
    )
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            "query and gallery must be of one width, embedded by the same network, "
            f"got {query.shape[1]} and {gallery.shape[1]}"
        )
    require_same_maker(query.metadata, gallery.metadata)
    query = query if names is None else query.select(names)
    own = gallery.places(query.names) if same else None
    count = min(top, len(gallery) - (own is not None))
    if count < 1:
        raise ValueError(f"gallery must hold a tracklet besides the query, got {len(gallery)} in all")
    people = (query.people, gallery.people) if labels is None else people_from_table(labels, query, gallery, same)
    known = people[0] is not None and people[1] is not None and are_comparable(people[0], people[1])
    return Task(query, gallery, own, count, metric or "euclidean", (people[0], people[1]) if known else None)  # type: ignore[arg-type]
