"""Embeddings joined to their labels, from a table or from the files themselves, for an evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nl3d.data.labels import DISTRACTOR, JUNK, number_labels
from nl3d.embedding.embeddings import Embeddings, require_same_maker
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
        protocol: How query and gallery are separated: ``"parts"`` of a table, two ``"files"``, or ``"all"``.
        notes: What was left out, one sentence each.
        q_clothes: ``(num_query,)`` int64, if the table has a column ``clothes``.
        g_clothes: ``(num_gallery,)`` int64, likewise.
    """

    query: Tensor
    gallery: Tensor
    q_pids: Tensor
    g_pids: Tensor
    q_camids: Tensor | None
    g_camids: Tensor | None
    protocol: str
    notes: tuple[str, ...] = ()
    q_clothes: Tensor | None = None
    g_clothes: Tensor | None = None

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return the arguments of :func:`nl3d.metrics.evaluate`, in its order."""
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

    Labels are those of a table, joined by the names of the tracklets, or else those in the files. They are compared as
    text, so two files may have been embedded apart. A table's ``part`` column says which rows are ``query`` and
    ``gallery``, from one file or two, and each of them must be there. Without one, two files are query and gallery, and
    one file is all against all: every tracklet of a person is searched for among all of them.

    Args:
        query: File of the queries, or of everything; see :meth:`nl3d.Embeddings.load`.
        gallery: File of the gallery; that of the queries, if left out.
        labels: Table; see :func:`read_labels`.
        junk_pids: As for :func:`nl3d.metrics.evaluate`; they are not queries of all against all.
        distractor_pids: As for :func:`nl3d.metrics.evaluate`; they are not queries of all against all.
        exclude_same_camera: As for :func:`nl3d.metrics.evaluate`. If off, cameras need not be known, but no tracklet
            can be query and gallery at once, since it would find itself.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file cannot be read, labels are missing, or they and the embeddings do not fit.
    """
    not_people = {*junk_pids, *distractor_pids}
    first = Embeddings.open(query)
    alone = gallery is None or (Path(gallery).exists() and Path(gallery).samefile(query))
    second = first if gallery is None or alone else Embeddings.open(gallery)
    require_same_maker(first.metadata, second.metadata)
    table = None if labels is None else read_labels(labels, not_people=not_people)
    has_parts = table is not None and table.has_parts
    if table is not None and not has_parts and not alone:
        _check_names_differ(first, second, table)
    sides = [_join(file, table, part, alone) for file, part in ((first, "query"), (second, "gallery"))]
    if alone and not has_parts:
        excluded = set(map(str, not_people))
        sides[0] = sides[0].only([place for place, person in enumerate(sides[0].people) if person not in excluded])
        if not sides[0].places:
            raise ValueError(
                f"embeddings file {str(first.path)!r} must hold a person to search for, got {len(first)} tracklets of "
                "junk or distractors"
            )
    if exclude_same_camera:
        for side in sides:
            if side.cameras is None:
                raise ValueError(
                    f"camids of {str(side.file.path)!r} must be known, so that the same camera can be left out; give "
                    "them in the file, or in a table of labels"
                )
    elif alone and (both := {*sides[0].places} & {*sides[1].places}):
        raise ValueError(
            "exclude_same_camera must be on where a tracklet is query and gallery at once, or it finds itself, "
            f"got {len(both)} of them"
        )
    people = [side.people for side in sides]
    if not are_comparable(*people):
        raise ValueError(
            f"people of {str(first.path)!r} and {str(second.path)!r} must have labels of one kind, got "
            f"{people[0][0]!r} and {people[1][0]!r}; give one table of labels for both (--labels)"
        )
    numbers = number_labels([*people[0], *people[1]], {JUNK, DISTRACTOR, *not_people})
    q_pids, g_pids = (torch.tensor([numbers[person] for person in side], dtype=torch.int64) for side in people)
    cameras = [side.cameras or [] for side in sides]
    numbers = number_labels([*cameras[0], *cameras[1]])
    q_camids, g_camids = (
        torch.tensor([numbers[camera] for camera in side], dtype=torch.int64) if side else None for side in cameras
    )
    worn = [side.clothes or [] for side in sides]
    numbers = number_labels([*worn[0], *worn[1]])
    q_clothes, g_clothes = (
        torch.tensor([numbers[label] for label in side], dtype=torch.int64) if side else None for side in worn
    )
    return Retrieval(
        query=first.embeddings[sides[0].places],
        gallery=second.embeddings[sides[1].places],
        q_pids=q_pids,
        g_pids=g_pids,
        q_camids=q_camids,
        g_camids=g_camids,
        q_clothes=q_clothes,
        g_clothes=g_clothes,
        protocol="parts" if has_parts else "all" if alone else "files",
        notes=() if table is None else _left_out(table, [first] if alone else [first, second]),
    )


class _Side(NamedTuple):
    """Query or gallery: rows of a file, and their labels."""

    file: Embeddings
    places: list[int]
    people: list[str]
    cameras: list[str] | None
    clothes: list[str] | None = None

    def only(self, kept: list[int]) -> _Side:
        cameras, clothes = (x and [x[i] for i in kept] for x in (self.cameras, self.clothes))
        return _Side(self.file, [self.places[i] for i in kept], [self.people[i] for i in kept], cameras, clothes)


def are_comparable(query: Sequence[str | None], gallery: Sequence[str | None]) -> bool:
    """Whether two sets of labels of people can share any: not if one has numbers only and the other names only.

    Junk and distractors are numbers in any set and count for neither.
    """
    kinds = []
    for labels in (query, gallery):
        real = {*labels} - {None, str(JUNK), str(DISTRACTOR)}
        kinds.append({label is not None and label.lstrip("-").isdecimal() for label in real})
    return not kinds[0] or not kinds[1] or bool(kinds[0] & kinds[1])


def people_from_table(
    labels: Any, query: Embeddings, gallery: Embeddings, alone: bool
) -> tuple[list[str | None], list[str | None]]:
    """Return the people of query and gallery by a table of labels, None for tracklets that it does not name."""
    table = read_labels(labels)
    if not table.has_parts and not alone:
        _check_names_differ(query, gallery, table)
    sides = []
    for part, side in (("query", query), ("gallery", gallery)):
        named: dict[str, str | None] = {}
        for row in table.rows:
            if not table.has_parts or alone or row.part == part:
                named[f"{row.part}/{row.name}"] = row.person
                # a name of two people, one in each part, says nothing by itself
                named[row.name] = row.person if named.get(row.name, row.person) == row.person else None
        people = [named.get(name) for name in side.names]
        if not any(people):
            raise ValueError(
                f"table of labels {str(table.path)!r} must name tracklets of the {part}, such as {side.names[0]!r}; "
                f"it names {_some(row.name for row in table.rows)}"
            )
        sides.append(people)
    return sides[0], sides[1]


def _join(file: Embeddings, table: LabelTable | None, part: str, alone: bool) -> _Side:
    own_cameras = None if file.cameras is None or None in file.cameras else [str(camera) for camera in file.cameras]
    if table is None:
        if file.people is None or None in file.people:
            raise ValueError(
                f"embeddings file {str(file.path)!r} must hold pids, or a table of labels must be given, with the "
                "columns tracklet, pid and camid"
            )
        return _Side(file, list(range(len(file))), [str(person) for person in file.people], own_cameras)
    if not file.has_names:
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
    cameras = [row.camera for row in rows if row.camera is not None]
    if not cameras and own_cameras is not None:
        cameras = [own_cameras[place] for place in places]
    clothes = [row.clothes for row in rows if row.clothes is not None]
    return _Side(file, places, [row.person for row in rows], cameras or None, clothes or None)


def _in_order(file: Embeddings, table: LabelTable, part: str, alone: bool) -> tuple[list[LabelRow], list[int]]:
    """Join the rows of a file without names to the tracklets of the table in order."""
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


def _find(file: Embeddings, table: LabelTable, rows: Sequence[LabelRow]) -> list[int]:
    known = {name: place for place, name in enumerate(file.names)}
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


def _check_names_differ(first: Embeddings, second: Embeddings, table: LabelTable) -> None:
    shared = sorted({*first.names} & {*second.names})
    if shared and first.has_names and second.has_names:
        raise ValueError(
            f"table of labels {str(table.path)!r} must have a part column where query and gallery share names, "
            f"such as {shared[0]!r}, since these may be two tracklets"
        )


def _left_out(table: LabelTable, files: Sequence[Embeddings]) -> tuple[str, ...]:
    """Name what only one of table and files has, where the table's parts or the files are what counts."""
    held = {name for file in files for name in file.names}
    if not all(file.has_names for file in files):
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
