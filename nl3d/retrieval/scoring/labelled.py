"""Embeddings joined to their labels, from a table or from the files themselves: what an evaluation takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nl3d.embedding.embeddings import require_made_alike
from nl3d.embedding.vector_files import VectorFile, read_vectors
from nl3d.retrieval.scoring.labels import LabelRow, LabelTable, read_labels


@dataclass(frozen=True, eq=False, kw_only=True)
class Retrieval:
    """Queries and gallery with their labels.

    Args:
        query: ``(num_query, D)``.
        gallery: ``(num_gallery, D)``.
        q_pids: ``(num_query,)`` int64.
        g_pids: ``(num_gallery,)`` int64.
        q_camids: ``(num_query,)`` int64, if known.
        g_camids: ``(num_gallery,)`` int64, if known.
        protocol: What made them queries and gallery: ``"parts"`` of a table, ``"files"``, or ``"all"`` against all.
        notes: What was left out, a sentence each.
    """

    query: Tensor
    gallery: Tensor
    q_pids: Tensor
    g_pids: Tensor
    q_camids: Tensor | None
    g_camids: Tensor | None
    protocol: str
    notes: tuple[str, ...] = ()

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Give what :func:`nl3d.metrics.evaluate` takes, in its order."""
        return self.query, self.gallery, self.q_pids, self.g_pids, self.q_camids, self.g_camids


def read_retrieval(
    query: str | Path,
    gallery: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    junk_pids: Collection[int] = (-1,),
    distractor_pids: Collection[int] = (),
    exclude_same_camera: bool = True,
) -> Retrieval:
    """Read embeddings and their labels, for ``evaluate(*read_retrieval(...).arguments())``.

    Labels are those of a table, joined by the names of the tracklets, or else those in the files. A table whose
    ``part`` column says ``query`` and ``gallery`` settles which rows these are, from one file or two, and each of them
    must be there. Without one, two files are query and gallery, and one file is all against all: every tracklet of a
    person is looked for among all of them.

    Args:
        query: File of the queries, or of everything; see :func:`nl3d.embedding.vector_files.read_vectors`.
        gallery: File of the gallery; that of the queries, if left out.
        labels: Table; see :func:`read_labels`.
        junk_pids: As for :func:`nl3d.metrics.evaluate`; all against all, these are no queries.
        distractor_pids: As for :func:`nl3d.metrics.evaluate`; all against all, these are no queries.
        exclude_same_camera: As for :func:`nl3d.metrics.evaluate`. If not, cameras need not be known, but nothing can be
            query and gallery at once, since it would find itself.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file cannot be read, labels are missing, or they and the embeddings do not fit.
    """
    nobody = {*junk_pids, *distractor_pids}
    first = read_vectors(query)
    alone = gallery is None or (Path(gallery).exists() and Path(gallery).samefile(first.path))
    second = first if gallery is None or alone else read_vectors(gallery)
    require_made_alike(first.made_by, second.made_by)
    table = None if labels is None else read_labels(labels, nobody=nobody)
    has_parts = table is not None and table.has_parts
    if table is not None and not has_parts and not alone:
        _check_names_differ(first, second, table)
    sides = [_join(file, table, part, alone) for file, part in ((first, "query"), (second, "gallery"))]
    if alone and not has_parts:
        sides[0] = sides[0].only([place for place, pid in enumerate(sides[0].pids) if pid not in nobody])
        if not sides[0].places:
            raise ValueError(
                f"embeddings file {str(first.path)!r} must hold a person to look for, got {len(first)} tracklets of "
                "junk or distractors"
            )
    if exclude_same_camera:
        for side in sides:
            if side.camids is None:
                raise ValueError(
                    f"camids of {str(side.file.path)!r} must be known, so that the same camera can be left out; give "
                    "them in the file, or in a table of labels"
                )
    elif alone and (both := {*sides[0].places} & {*sides[1].places}):
        raise ValueError(
            "exclude_same_camera must be on where a tracklet is query and gallery at once, or it finds itself, "
            f"got {len(both)} of them"
        )
    (q_pids, q_camids), (g_pids, g_camids) = (side.labels() for side in sides)
    return Retrieval(
        query=first.vectors[sides[0].places],
        gallery=second.vectors[sides[1].places],
        q_pids=q_pids,
        g_pids=g_pids,
        q_camids=q_camids,
        g_camids=g_camids,
        protocol="parts" if has_parts else "all" if alone else "files",
        notes=() if table is None else _left_out(table, [first] if alone else [first, second]),
    )


class _Side(NamedTuple):
    """Query or gallery: rows of a file, and the label of each."""

    file: VectorFile
    places: list[int]
    pids: list[int]
    camids: list[int] | None

    def only(self, kept: list[int]) -> _Side:
        camids = None if self.camids is None else [self.camids[i] for i in kept]
        return _Side(self.file, [self.places[i] for i in kept], [self.pids[i] for i in kept], camids)

    def labels(self) -> tuple[Tensor, Tensor | None]:
        camids = None if self.camids is None else torch.tensor(self.camids, dtype=torch.int64)
        return torch.tensor(self.pids, dtype=torch.int64), camids


def _join(file: VectorFile, table: LabelTable | None, part: str, alone: bool) -> _Side:
    own_camids = None if file.camids is None else file.camids.tolist()
    if table is None:
        if file.pids is None:
            raise ValueError(
                f"embeddings file {str(file.path)!r} must hold pids, or a table of labels must be given, with the "
                "columns tracklet, pid and camid"
            )
        return _Side(file, list(range(len(file))), file.pids.tolist(), own_camids)
    if file.names is None:
        rows, places = _in_order(file, table, part, alone)
    elif table.has_parts:
        rows = [row for row in table.rows if row.part == part]
        places = _find(file, table, rows)
    else:
        known = {row.name: row for row in table.rows}
        lacking = [name for name in file.names if name not in known]
        if lacking:
            raise ValueError(
                f"table of labels {str(table.path)!r} must name every tracklet of {str(file.path)!r}, but lacks "
                f"{len(lacking)} of {len(file)}, such as {lacking[0]!r}; it names {_some(known)}"
            )
        rows, places = [known[name] for name in file.names], list(range(len(file)))
    if not rows:
        raise ValueError(f"table of labels {str(table.path)!r} must have rows of the part {part!r}, got none")
    camids = [row.camid for row in rows if row.camid is not None]
    if not camids and own_camids is not None:
        camids = [own_camids[place] for place in places]
    return _Side(file, places, [row.pid for row in rows], camids or None)


def _in_order(file: VectorFile, table: LabelTable, part: str, alone: bool) -> tuple[list[LabelRow], list[int]]:
    """Take the rows of a file without names for the tracklets of the table, one after another."""
    if not alone and not table.has_parts:
        raise ValueError(
            f"embeddings file {str(file.path)!r} must hold names, or the table of labels a part column, so that they "
            "can be joined"
        )
    numbered = list(enumerate(row for row in table.rows if alone or row.part == part))
    if len(numbered) != len(file):
        raise ValueError(
            f"embeddings file {str(file.path)!r} holds no names, so it must have one row for each tracklet of "
            f"{str(table.path)!r}{'' if alone else f' in part {part!r}'}, {len(numbered)}, got {len(file)}"
        )
    chosen = [(row, place) for place, row in numbered if not table.has_parts or row.part == part]
    return [row for row, _ in chosen], [place for _, place in chosen]


def _find(file: VectorFile, table: LabelTable, rows: Sequence[LabelRow]) -> list[int]:
    assert file.names is not None
    known = {name: place for place, name in enumerate(file.names)}
    if len(known) != len(file):
        raise ValueError(f"names of {str(file.path)!r} must differ from each other, to be joined with a table")
    places = [known.get(f"{row.part}/{row.name}", known.get(row.name)) for row in rows]
    lacking = [row.name for row, place in zip(rows, places, strict=True) if place is None]
    if lacking:
        raise ValueError(
            f"embeddings file {str(file.path)!r} must hold every {rows[0].part} tracklet of {str(table.path)!r}, but "
            f"lacks {len(lacking)} of {len(rows)}, such as {lacking[0]!r}; it holds {_some(known)}"
        )
    return [place for place in places if place is not None]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


def _check_names_differ(first: VectorFile, second: VectorFile, table: LabelTable) -> None:
    shared = sorted({*(first.names or ())} & {*(second.names or ())})
    if shared:
        raise ValueError(
            f"table of labels {str(table.path)!r} must have a part column where query and gallery share names, "
            f"such as {shared[0]!r}, since these may be two tracklets"
        )


def _left_out(table: LabelTable, files: Sequence[VectorFile]) -> tuple[str, ...]:
    """Name what only one of table and files has, where the table's parts or the files are what counts."""
    held = {name for file in files for name in file.names or ()}
    if not all(file.names for file in files):
        return ()
    if table.has_parts:
        named = {name for row in table.rows for name in (row.name, f"{row.part}/{row.name}")}
        spare, what = sorted(held - named), "embeddings are not in"
    else:
        spare = sorted({row.name for row in table.rows} - held)
        what = "tracklets have no embedding, of those in"
    if not spare:
        return ()
    return (f"{len(spare)} {what} {str(table.path)!r}, such as {spare[0]!r}, and were left out",)
