"""A ranking: the gallery tracklets nearest to each query, as numbers, as a table, and as a picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from torch import Tensor

from nl3d.data.labels import JUNK
from nl3d.data.readers.boxes import BoxOptions
from nl3d.data.sources import open_source
from nl3d.data.tracklet_source import TrackletSource
from nl3d.embedding.embeddings import Embeddings, html_table, import_pandas
from nl3d.files import PICTURES, check_output, replacing
from nl3d.metrics.distance import Metric
from nl3d.retrieval.calibration import UNKNOWN, Calibration, Decision
from nl3d.viz.ranking import Tile, draw_ranking

if TYPE_CHECKING:
    from PIL.Image import Image

    from nl3d.data.tracklets import Tracklet

    Source: TypeAlias = str | Path | Sequence[Tracklet]


class Found(NamedTuple):
    """One gallery tracklet of a ranking.

    Attributes:
        rank: Its place, from 1.
        name: Its name.
        track_id: Its number.
        frames: Its first and last frame, from 1; None if not known.
        distance: Its distance to the query.
        match: Whether it shows the query's person; None if either is not known or is junk.
        probability: That both show one person; None without a calibration.
        decision: ``"same"``, ``"unsure"`` or ``"different"``, likewise.
    """

    rank: int
    name: str
    track_id: int
    frames: tuple[int, int] | None
    distance: float
    match: bool | None
    probability: float | None = None
    decision: Decision | None = None


class RankedQuery(NamedTuple):
    """One query and its ranking, nearest first; printed as a table.

    Attributes:
        name: Its name.
        track_id: Its number.
        frames: Its first and last frame, from 1; None if not known.
        found: The ranking.
        answer: Label of the nearest tracklet's person if it is the same (its name, if it has no label), else
            ``"unknown"``; None without a calibration.
    """

    name: str
    track_id: int
    frames: tuple[int, int] | None
    found: tuple[Found, ...]
    answer: str | None = None

    def __str__(self) -> str:
        width = max(len(name) for name in ("tracklet", *(found.name for found in self.found)))
        lines = [f"query {self.name}" + (f" (frames {_span(self.frames)})" if self.frames else "")]
        lines[0] += f": {self.answer}" if self.answer else ""
        judged = "  probability  decision " if self.answer else ""
        lines.append(f"  rank  {'tracklet':<{width}}  distance{judged}  frames")
        for found in self.found:
            mark = {True: "  match", False: "  other", None: ""}[found.match]
            span = _span(found.frames) if found.frames else "-"
            judged = f"  {found.probability:11.3f}  {found.decision:<9}" if found.decision else ""
            lines.append(f"  {found.rank:>4}  {found.name:<{width}}  {found.distance:8.4f}{judged}  {span}{mark}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False)
class Ranking:
    """The gallery tracklets nearest to each query, nearest first.

    Args:
        query: The queries.
        gallery: Where they were searched for.
        indices: ``(num_query, K)`` int64, rows of the gallery; -1 at the end of a row for which an index found fewer.
        distances: ``(num_query, K)``, ascending along a row, infinite where ``indices`` are -1.
        metric: How distances were measured.
        people: Labels of the people of query and gallery, None for those that are not known.
        calibration: How distances become probabilities, if that is known.
    """

    query: Embeddings
    gallery: Embeddings
    indices: Tensor
    distances: Tensor
    metric: Metric
    people: tuple[Sequence[str | None], Sequence[str | None]] | None = None
    calibration: Calibration | None = None

    def match(self, row: int, column: int) -> bool | None:
        """Whether a gallery tracklet shows the query's person; None if either is not known or is junk."""
        place = int(self.indices[row, column])
        if self.people is None or place < 0:
            return None
        person, other = self.people[0][row], self.people[1][place]
        return None if {person, other} & {None, str(JUNK)} else person == other

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, row: int) -> RankedQuery:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row must be below the {len(self)} queries, got {row}")
        row %= len(self)
        distances = self.distances[row]
        judged: Sequence[tuple[float | None, Decision | None]] = [(None, None)] * len(distances)
        if self.calibration is not None:
            judged = self.calibration.judge(distances)
        found = tuple(
            Found(column + 1, *_described(self.gallery, place), distance, self.match(row, column), *judgement)
            for column, (place, distance, judgement) in enumerate(
                zip(self.indices[row].tolist(), distances.tolist(), judged, strict=True)
            )
            if place >= 0
        )
        answer = None if self.calibration is None else UNKNOWN
        if found and found[0].decision == "same":
            people = self.gallery.people
            answer = (people and people[int(self.indices[row, 0])]) or found[0].name
        return RankedQuery(*_described(self.query, row), found, answer)

    def __iter__(self) -> Iterator[RankedQuery]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        matched = ""
        if self.people is not None:
            first = [self.match(row, 0) for row in range(len(self))]
            matched = f", {first.count(True)} of {len(first) - first.count(None)} matched at rank 1"
        return (
            f"Ranking({len(self)} queries in {len(self.gallery)} tracklets, top {self.indices.shape[1]}, "
            f"{self.metric}{matched})"
        )

    def _repr_html_(self) -> str:
        title = repr(self) + ("" if len(self) <= 5 else "; the first five queries:")
        try:
            image = self.draw(rows=5)
        except (OSError, ValueError, ImportError):  # the frames are elsewhere
            rows = [("query", "rank", "tracklet", "distance", "decision", "match")]
            for ranked in (self[row] for row in range(min(5, len(self)))):
                for found in ranked.found[:10]:
                    match = "" if found.match is None else "yes" if found.match else "no"
                    rows.append(
                        (ranked.name, str(found.rank), found.name, f"{found.distance:.4f}", found.decision or "", match)
                    )
            return html_table(title, rows)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return (
            html_table(title, []) + f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, ready for JSON."""
        rankings = [
            {**_without_none(ranked._asdict()), "found": [_without_none(found._asdict()) for found in ranked.found]}
            for ranked in self
        ]
        return {"metric": self.metric, "rankings": rankings}

    def to_pandas(self) -> Any:  # pandas.DataFrame
        """Return a ``pandas.DataFrame`` with one row per query and rank.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        rows = [{"query": ranked.name, **found._asdict()} for ranked in self for found in ranked.found]
        return import_pandas().DataFrame(rows, columns=["query", *Found._fields])

    def table(self) -> str:
        """Return a table to read, one block per query."""
        return "\n".join(f"{ranked}\n" for ranked in self)

    def draw(
        self, *, rows: int = 10, query_source: Source | None = None, gallery_source: Source | None = None
    ) -> Image:
        """Draw the first queries, each followed by its ranking, with the middle frame of each tracklet.

        Args:
            rows: Queries to draw.
            query_source: Where the frames of the query are; where they were embedded from, if left out.
            gallery_source: The same for the gallery.

        Raises:
            FileNotFoundError: If the frames no longer exist.
            ValueError: If tracklets from memory were embedded and their source is left out, or ``rows`` is below 1.
        """
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}")
        drawn = min(rows, len(self.query))
        queries = self.query.names[:drawn]
        found = [
            [self.gallery.names[place] for place in self.indices[row].tolist() if place >= 0] for row in range(drawn)
        ]
        wanted = sorted({name for names in found for name in names})
        query_frames = open_embedded(self.query, query_source, "query_source").middle_frames(queries)
        gallery_frames = open_embedded(self.gallery, gallery_source, "gallery_source").middle_frames(wanted)
        picture = []
        for row, names in enumerate(found):
            tiles = [Tile(query_frames.get(queries[row]), queries[row], "query")]
            for column, name in enumerate(names):
                distance = f"{self.distances[row, column]:.3f}"
                tiles.append(Tile(gallery_frames.get(name), name, distance, self.match(row, column)))
            picture.append(tiles)
        return draw_ranking(picture)

    def save_picture(
        self,
        path: str | Path,
        *,
        rows: int = 10,
        query_source: Source | None = None,
        gallery_source: Source | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write what :meth:`draw` draws, whole or not at all. The suffix is the format: ``.png``, ``.jpg``, ``.webp``.

        Raises:
            FileExistsError: If the file exists and ``overwrite`` is off.
            ValueError: If the suffix is unknown, or the file is an input or a frame of one.
        """
        path = check_output(path, overwrite=overwrite, suffixes=PICTURES, inputs=self._inputs(path))
        image = self.draw(rows=rows, query_source=query_source, gallery_source=gallery_source)
        with replacing(path) as unfinished:
            image.save(unfinished)

    def _inputs(self, path: str | Path) -> Iterator[str | Path]:
        """Yield what a picture must not replace: the embedded files, and folders of their frames."""
        for side in (self.query, self.gallery):
            for name in ("source", "tracks"):
                if side.metadata.get(name):
                    yield side.metadata[name]
            if Path(path).exists() and Path(side.metadata.get("source") or "").suffix.lower() == ".csv":
                opened = open_embedded(side, None, "source")
                assert isinstance(opened, TrackletSource)
                yield from {getattr(tracklet.frames, "folder", "") for tracklet in opened.tracklets}


def _described(embeddings: Embeddings, row: int) -> tuple[str, int, tuple[int, int] | None]:
    frames = None
    if embeddings.frame_ranges is not None:
        first, last = embeddings.frame_ranges[row].tolist()
        frames = first, last
    return embeddings.names[row], int(embeddings.track_ids[row]), frames


def _span(frames: tuple[int, int]) -> str:
    return f"{frames[0]}-{frames[1]}"


def _without_none(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def open_embedded(embeddings: Embeddings, source: Source | None, argument: str) -> Any:
    """Open what a set was embedded from, or another source of the same tracklets."""
    about, tracks = embeddings.metadata, None
    if source is None or isinstance(source, str | Path):
        source, tracks = source or about.get("source") or None, about.get("tracks") or None
    if source is None:
        raise ValueError(f"{argument} must be given for tracklets that were embedded from memory")
    options = about.get("box_options")
    return open_source(source, tracks, boxes=BoxOptions.from_json(options) if options else None)
