"""Rank the gallery tracklets by their distance to each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from nl3d.data.labels import parse_label
from nl3d.data.readers.columns import is_table
from nl3d.embedding.embeddings import Embeddings, require_same_maker
from nl3d.metrics.distance import Metric
from nl3d.retrieval.calibration import Calibration
from nl3d.retrieval.ranking import Ranking
from nl3d.retrieval.scoring.labelled import are_comparable, people_from_table
from nl3d.retrieval.search.index import GalleryIndex
from nl3d.retrieval.search.nearest import nearest

Labels: TypeAlias = "str | Path | Mapping[str, str | int | None] | Sequence[Any] | Any"
"""A table of labels, a mapping from names to labels, or labels in order."""

People: TypeAlias = tuple[Sequence[str | None], Sequence[str | None]]
"""Labels of the people of query and gallery, None for those that are not known."""


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
    people: People | None

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
    labels: Labels | None = None,
    calibration: Calibration | str | Path | None = None,
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
        labels: Labels by which matches are marked: a table (``.csv``, ``.parquet``, data frame), as for
            ``nl3d evaluate``; a mapping from names of tracklets to people; or one label per tracklet in order, for two
            sets a pair of these, ``(query, gallery)``. The labels of the embeddings, if left out.
        calibration: How distances become probabilities, or its file; the one that comes with the package for this
            network, if there is one and it is of this metric, if left out.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the two were made by different networks, there is nothing to rank, the labels name no
            tracklet of them, or the calibration is of another network or metric.

    Example:
        >>> people = nl3d.Embeddings(torch.tensor([[0.0], [1.0], [5.0]]), names=("a", "b", "c"))
        >>> rank(people, people, top=1).indices.flatten().tolist()
        [1, 0, 1]
    """
    task = prepare(query, gallery, top=top, metric=metric, names=names, labels=labels)
    judge = Calibration.choose(calibration, {**task.gallery.metadata, **task.query.metadata}, task.metric)
    if isinstance(gallery, GalleryIndex):
        distances, indices = gallery.search(task.vectors, task.count, own=task.own)
    else:
        distances, indices = nearest(task.vectors, task.gallery, task.count, metric=task.metric, own=task.own)
    return Ranking(task.query, task.gallery, indices, distances, task.metric, task.people, judge)


def prepare(
    query: Embeddings | str | Path,
    gallery: Embeddings | GalleryIndex | str | Path,
    *,
    top: int,
    metric: Metric | None,
    names: Sequence[str] | None,
    labels: Labels | None = None,
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
    whole, query = query, query if names is None else query.select(names)
    own = gallery.places(query.names) if same else None
    count = min(top, len(gallery) - (own is not None))
    if count < 1:
        raise ValueError(f"gallery must hold a tracklet besides the query, got {len(gallery)} in all")
    people = None if labels is None else _people(labels, whole, query, gallery, same)
    if labels is None and query.people is not None and gallery.people is not None:
        people = query.people, gallery.people
    comparable = people is not None and are_comparable(*people)
    return Task(query, gallery, own, count, metric or "euclidean", people if comparable else None)


def _people(labels: Labels, whole: Embeddings, query: Embeddings, gallery: Embeddings, same: bool) -> People:
    """Return the people of query and gallery by labels of any form; ``query`` are some of ``whole``."""
    if isinstance(labels, str | Path) or is_table(labels):
        return people_from_table(labels, query, gallery, same)
    sides, sets = ([labels], [gallery]) if same else (list(labels), [whole, gallery])
    if [len(side) if hasattr(side, "__len__") else 0 for side in sides] != [len(side) for side in sets]:
        wanted = f"{len(gallery)}" if same else f"as a pair for query and gallery, {len(whole)} and {len(gallery)}"
        raise ValueError(f"labels must be one per tracklet, {wanted}, got {len(labels)}")
    people = [
        {
            name: None if label is None else parse_label(str(label))
            for name, label in zip(side.names, values, strict=True)
        }
        for side, values in zip(sets, map(_plain, sides), strict=True)
    ]
    return [people[0][name] for name in query.names], [*people[-1].values()]


def _plain(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else [*values]
