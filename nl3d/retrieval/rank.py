"""Which tracklets of a gallery look most like each query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from torch import Tensor

from nl3d.data.readers.boxes import BoxOptions
from nl3d.data.sources import open_source
from nl3d.embedding.stored import Vectors
from nl3d.files import check_output, replacing
from nl3d.metrics.distance import Metric
from nl3d.retrieval.search.index import GalleryIndex
from nl3d.retrieval.search.nearest import nearest
from nl3d.retrieval.task import prepare
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
        frames: Its first and last frame, from 1.
        distance: How far it is from the query.
        match: Whether it shows the query's person; None where identities are not known.
    """

    rank: int
    name: str
    track_id: int
    frames: tuple[int, int]
    distance: float
    match: bool | None


class RankedQuery(NamedTuple):
    """One query and what was found for it, nearest first; printed as a table."""

    name: str
    track_id: int
    frames: tuple[int, int]
    found: tuple[Found, ...]

    def __str__(self) -> str:
        width = max(len(name) for name in ("tracklet", *(found.name for found in self.found)))
        lines = [f"query {self.name} (frames {self.frames[0]}-{self.frames[1]})"]
        lines.append(f"  rank  {'tracklet':<{width}}  distance  frames")
        for found in self.found:
            mark = {True: "  match", False: "  other", None: ""}[found.match]
            first, last = found.frames
            lines.append(f"  {found.rank:>4}  {found.name:<{width}}  {found.distance:8.4f}  {first}-{last}{mark}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The gallery tracklets nearest to each query, nearest first.

    Args:
        query: What was looked for.
        gallery: Where it was looked for.
        indices: ``(num_query, K)`` int64, rows of the gallery; -1 at the end of a row for which an index found fewer.
        distances: ``(num_query, K)`` float32, ascending along a row, infinite where ``indices`` are -1.
        metric: How distances were measured.
    """

    query: Vectors
    gallery: Vectors
    indices: Tensor
    distances: Tensor
    metric: Metric

    def match(self, row: int, column: int) -> bool | None:
        """Whether a gallery tracklet shows the query's person; None where identities are not known."""
        if self.query.pids is None or self.gallery.pids is None:
            return None
        return bool(self.query.pids[row] == self.gallery.pids[self.indices[row, column]])

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, row: int) -> RankedQuery:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row must be below the {len(self)} queries, got {row}")
        row %= len(self)
        found = tuple(
            Found(column + 1, *_who(self.gallery, place), distance, self.match(row, column))
            for column, (place, distance) in enumerate(
                zip(self.indices[row].tolist(), self.distances[row].tolist(), strict=True)
            )
            if place >= 0
        )
        return RankedQuery(*_who(self.query, row), found)

    def __iter__(self) -> Iterator[RankedQuery]:
        return (self[row] for row in range(len(self)))

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and strings, ready for JSON."""
        rankings = [
            {**ranked._asdict(), "found": [_without_none(found._asdict()) for found in ranked.found]} for ranked in self
        ]
        return {"metric": self.metric, "rankings": rankings}

    def table(self) -> str:
        """Give a table to read, one block a query."""
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
            FileNotFoundError: If the frames are no longer there.
            ValueError: If tracklets from memory were embedded and their source is left out, or ``rows`` is below 1.
        """
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}")
        drawn = min(rows, len(self.query))
        queries = [self.query.names[row] for row in range(drawn)]
        found = [
            [self.gallery.names[place] for place in self.indices[row].tolist() if place >= 0] for row in range(drawn)
        ]
        query_frames = _middle_frames(self.query, queries, query_source, "query_source")
        gallery_frames = _middle_frames(
            self.gallery, sorted({name for names in found for name in names}), gallery_source, "gallery_source"
        )
        picture = []
        for row, names in enumerate(found):
            tiles = [Tile(query_frames.get(queries[row]), f"query {queries[row]}")]
            for column, name in enumerate(names):
                caption = f"{name}   {self.distances[row, column]:.3f}"
                tiles.append(Tile(gallery_frames.get(name), caption, self.match(row, column)))
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
        """Write what :meth:`draw` draws, whole or not at all; the suffix says the format (``.png``, ``.jpg``).

        Raises:
            FileExistsError: If the file exists and ``overwrite`` is off.
            ValueError: If the suffix is unknown.
        """
        path = check_picture(path, overwrite=overwrite)
        image = self.draw(rows=rows, query_source=query_source, gallery_source=gallery_source)
        with replacing(path) as unfinished:
            image.save(unfinished)


def rank(
    query: Vectors | str | Path,
    gallery: Vectors | GalleryIndex | str | Path,
    *,
    top: int = 10,
    metric: Metric | None = None,
    names: Sequence[str] | None = None,
) -> Ranking:
    """Rank the tracklets of a gallery by their distance to each query.

    If query and gallery are the same object or the same file, each query is left out of its own ranking.

    Args:
        query: Embeddings, or a file of them.
        gallery: The same, or an index, which may miss some of the nearest.
        top: Gallery tracklets to give for each query, at most.
        metric: ``"euclidean"``, or ``"cosine"`` for one minus the cosine; an index's own, else Euclidean, if left out.
        names: Query tracklets to rank for; all, if left out.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the two were made by different networks, or there is nothing to rank.

    Example:
        >>> vectors, ranges = torch.tensor([[0.0], [1.0], [5.0]]), torch.ones(3, 2, dtype=torch.int64)
        >>> people = nl3d.Embeddings(vectors, torch.arange(3), ranges, ("a", "b", "c"))
        >>> rank(people, people, top=1).indices.flatten().tolist()
        [1, 0, 1]
    """
    task = prepare(query, gallery, top=top, metric=metric, names=names)
    if isinstance(gallery, GalleryIndex):
        distances, indices = gallery.search(task.vectors, task.count, own=task.own)
    else:
        distances, indices = nearest(task.vectors, task.gallery, task.count, metric=task.metric, own=task.own)
    return Ranking(task.query, task.gallery, indices, distances, task.metric)


def check_picture(path: str | Path, *, overwrite: bool) -> Path:
    """Refuse a picture that could not be written, before any work is done for it."""
    path = check_output(path, overwrite=overwrite)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"picture must end in .png, .jpg or .webp, got {str(path)!r}")
    return path


def _who(embeddings: Vectors, row: int) -> tuple[str, int, tuple[int, int]]:
    first, last = embeddings.frame_ranges[row].tolist()
    return embeddings.names[row], int(embeddings.track_ids[row]), (first, last)


def _without_none(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def _middle_frames(
    embeddings: Vectors, names: Sequence[str], source: Source | None, argument: str
) -> dict[str, Tensor]:
    tracks = None
    if source is None:
        source = embeddings.metadata.get("source") or None
        tracks = embeddings.metadata.get("tracks") or None
    elif isinstance(source, str | Path):
        tracks = embeddings.metadata.get("tracks") or None
    if source is None:
        raise ValueError(f"{argument} must be given for tracklets that were embedded from memory")
    options = embeddings.metadata.get("box_options")
    return open_source(source, tracks, boxes=BoxOptions.from_json(options) if options else None).middle_frames(names)
