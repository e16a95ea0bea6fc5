"""Answers of a gallery: who a query may be, to read, as plain values and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from nl3d.data.frames.images import decode_image
from nl3d.gallery.times import format_time
from nl3d.metrics.distance import Metric
from nl3d.retrieval.calibration import UNKNOWN, Calibration, Decision
from nl3d.viz.ranking import Tile, draw_ranking


class Entry(NamedTuple):
    """A tracklet of a gallery.

    Attributes:
        name: Its name.
        person: Label of its person, None if not known.
        camera: Label of its camera, likewise.
        frames: Its first and last frame, from 1, likewise.
        seen: When they were taken, in seconds since 1970, likewise.
        added: When it was added, in seconds since 1970.
    """

    name: str
    person: str | None
    camera: str | None
    frames: tuple[int, int] | None
    seen: tuple[float, float] | None
    added: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON, without what is not known."""
        values = self._asdict() | {
            "seen": self.seen and [format_time(moment) for moment in self.seen], "added": format_time(self.added),
        }  # fmt: skip
        return {key: value for key, value in values.items() if value is not None}

    def cells(self) -> tuple[str, ...]:
        """Return name, person, camera, frames and first time, to be read."""
        frames = "-" if self.frames is None else f"{self.frames[0]}-{self.frames[1]}"
        seen = "-" if self.seen is None else format_time(self.seen[0])
        return self.name, self.person or "-", self.camera or "-", frames, seen


HEADINGS = ("tracklet", "person", "camera", "frames", "first seen")


class Match(NamedTuple):
    """One tracklet that was found.

    Attributes:
        rank: Its place, from 1.
        entry: The tracklet.
        distance: Its distance to the query.
        probability: That both show one person; None without a calibration.
        decision: ``"same"``, ``"unsure"`` or ``"different"``, likewise.
    """

    rank: int
    entry: Entry
    distance: float
    probability: float | None = None
    decision: Decision | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values = {"rank": self.rank, **self.entry.to_dict(), "distance": self.distance}
        if self.decision is not None:
            values |= {"probability": self.probability, "decision": self.decision}
        return values


class Matches(NamedTuple):
    """One query and what was found for it, nearest first; printed as a table.

    Attributes:
        name: Name of the query.
        found: What was found.
        person: Label of the nearest tracklet's person if it is the same (its name, if it has no label), else
            ``"unknown"``; None without a calibration.
    """

    name: str
    found: tuple[Match, ...]
    person: str | None

    @classmethod
    def of(cls, name: str, entries: Sequence[Entry], distances: Tensor, calibration: Calibration | None) -> Matches:
        """Describe what was found, and name its person if there is a calibration to judge distances."""
        judged: Sequence[tuple[float | None, Decision | None]] = [(None, None)] * len(entries)
        if calibration is not None:
            judged = calibration.judge(distances)
        places = zip(entries, distances.tolist(), judged, strict=True)
        found = tuple(Match(place, entry, distance, *both) for place, (entry, distance, both) in enumerate(places, 1))
        if calibration is None:
            return cls(name, found, None)
        if found and found[0].decision == "same":
            return cls(name, found, found[0].entry.person or found[0].entry.name)
        return cls(name, found, UNKNOWN)

    def __str__(self) -> str:
        answer = "" if self.person is None else f": {self.person}"
        judged = any(match.decision is not None for match in self.found)
        rows = [("rank", *HEADINGS, "distance", *(("probability", "decision") if judged else ()))]
        for match in self.found:
            judgement = (f"{match.probability:.3f}", match.decision or "") if judged else ()
            rows.append((str(match.rank), *match.entry.cells(), f"{match.distance:.4f}", *judgement))
        return "\n".join([f"query {self.name}{answer}", *align(rows, indent="  ")])


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """What was found for each query.

    Args:
        matches: One per query.
        metric: How distances were measured.
    """

    matches: tuple[Matches, ...]
    metric: Metric

    def __len__(self) -> int:
        return len(self.matches)

    def __getitem__(self, row: int) -> Matches:
        return self.matches[row]

    def __iter__(self) -> Iterator[Matches]:
        return iter(self.matches)

    def __repr__(self) -> str:
        known = sum(matches.person not in (None, UNKNOWN) for matches in self)
        judged = any(matches.person is not None for matches in self)
        return f"Answer({len(self)} queries, {self.metric}" + (f", {known} known)" if judged else ")")

    def table(self) -> str:
        """Return a table to read, one block per query."""
        return "\n".join(f"{matches}\n" for matches in self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        queries = []
        for matches in self:
            person = {} if matches.person is None else {"person": matches.person}
            queries.append({"name": matches.name, **person, "found": [match.to_dict() for match in matches.found]})
        return {"metric": self.metric, "queries": queries}


def align(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Return lines of a table whose columns are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return [(indent + "  ".join(cells)).rstrip() for cells in padded]


def draw_answer(answer: Answer, thumbnails: Mapping[str, bytes], queries: Mapping[str, Tensor]) -> Image.Image:
    """Draw each query, followed by the thumbnails of what was found.

    Args:
        answer: What was found.
        thumbnails: JPEG of the gallery's tracklets by name, where there is one.
        queries: Middle frames ``(3, H, W)`` uint8 of the queries by name, where known.
    """
    rows = []
    for matches in answer:
        tiles = [Tile(queries.get(matches.name), matches.name, matches.person or "query")]
        for match in matches.found:
            jpeg = thumbnails.get(match.entry.name)
            image = None if jpeg is None else decode_image(jpeg)
            same = {"same": True, "different": False}.get(match.decision or "")
            tiles.append(Tile(image, match.entry.person or match.entry.name, f"{match.distance:.3f}", same))
        rows.append(tiles)
    return draw_ranking(rows)
