"""Identities in files: a table, tracks with people's numbers, and a contact sheet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from nl3d.data.readers.boxes import BoxOptions, read_boxes
from nl3d.embedding.embeddings import Embeddings
from nl3d.files import PICTURES, check_output, replacing
from nl3d.people.tracklets import TrackletList
from nl3d.retrieval.ranking import open_embedded
from nl3d.viz.ranking import Tile, draw_ranking

if TYPE_CHECKING:
    from nl3d.people.identities import Identities

TABLES = (".csv", ".json")
COLUMNS = ("tracklet", "camera", "first", "last", "person", "confidence")
VISITS_PER_LINE = 12


def check_table(path: str | Path, *, overwrite: bool, tracklets: TrackletList) -> Path:
    """Refuse a table that could not be written or would replace an input; see :func:`nl3d.files.check_output`."""
    return check_output(path, overwrite=overwrite, suffixes=TABLES, inputs=list(_inputs(tracklets)))


def save_table(identities: Identities, path: str | Path, *, overwrite: bool = False) -> None:
    """Write one row per tracklet; see :meth:`nl3d.people.identities.Identities.save`."""
    path = check_table(path, overwrite=overwrite, tracklets=identities.tracklets)
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".json":
            json.dump(identities.to_dict(), file, indent=1)
            file.write("\n")
            return
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for one in identities:
            cells = (one.tracklet, one.camera, one.first, one.last, one.person, f"{one.confidence:.4f}")
            rows.writerow(["" if cell is None else cell for cell in cells])


def track_files(tracklets: TrackletList, path: str | Path) -> list[Path]:
    """Return the file of tracks of each set: ``path`` itself for one set, else one in the folder ``path``.

    Raises:
        ValueError: If a set was not embedded from a video with boxes, or the path does not fit the number of sets.
    """
    path = Path(path)
    for title, part in zip(tracklets.titles, tracklets.embeddings, strict=True):
        if not part.metadata.get("tracks"):
            raise ValueError(f"tracks can only be written for videos with boxes, but {title!r} has none")
    if path.suffix.lower() == ".txt":
        if len(tracklets.embeddings) > 1:
            raise ValueError(
                f"tracks of {len(tracklets.embeddings)} sets must be written to a folder, got the file {str(path)!r}"
            )
        return [path]
    return [path / f"{title}.txt" for title in tracklets.titles]


def save_tracks(identities: Identities, path: str | Path, *, overwrite: bool = False) -> None:
    """Write boxes with people's numbers; see :meth:`nl3d.people.identities.Identities.save_tracks`."""
    tracklets = identities.tracklets
    files = track_files(tracklets, path)
    for file in files:
        file.parent.mkdir(exist_ok=True)
        check_output(file, overwrite=overwrite, inputs=list(_inputs(tracklets)))
    for place, (file, part) in enumerate(zip(files, tracklets.embeddings, strict=True)):
        rows = np.flatnonzero(tracklets.sets == place)
        numbers = dict(zip((tracklets.names[row] for row in rows), identities.numbers[rows].tolist(), strict=True))
        write_tracks(file, part, numbers)


def box_options(part: Embeddings) -> BoxOptions | None:
    """Return how the boxes were read that a set was embedded from."""
    options = part.metadata.get("box_options")
    return BoxOptions.from_json(options) if options else None


def write_tracks(path: Path, part: Embeddings, numbers: Mapping[str, int], *, keep_others: bool = False) -> int:
    """Write the boxes that a set was embedded from as MOTChallenge text, with other ids.

    Frames are numbered as in the file that the boxes come from.

    Args:
        path: The file.
        part: Embeddings of a video with boxes.
        numbers: New id of each tracklet, by name.
        keep_others: Whether tracks without a new id keep their own, rather than being left out.

    Returns:
        Number of boxes.
    """
    boxes = read_boxes(part.metadata["tracks"], box_options(part))
    scale = np.ones(4)
    if boxes.shares:
        frames = boxes.open_video(part.metadata["source"])
        _, image = next(frames.read({frames.first}, skip_unreadable=True))
        if not isinstance(image, Tensor):
            raise image
        scale = np.array([image.shape[-1], image.shape[-2]] * 2)
    lines = []
    for track in boxes.tracks:
        number = numbers.get(str(track.track_id), track.track_id if keep_others else None)
        if number is None:
            continue
        for frame, box in zip((track.frames + boxes.first_frame - 1).tolist(), track.boxes * scale, strict=True):
            left, top, width, height = (f"{value:.2f}".rstrip("0").rstrip(".") for value in box)
            lines.append((frame, number, f"{frame},{number},{left},{top},{width},{height},1,-1,-1,-1\n"))
    with replacing(path) as unfinished:
        unfinished.write_text("".join(line for _, _, line in sorted(lines)), encoding="utf-8")
    return len(lines)


def save_picture(identities: Identities, path: str | Path, *, rows: int = 50, overwrite: bool = False) -> None:
    """Draw the contact sheet; see :meth:`nl3d.people.identities.Identities.save_picture`."""
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    path = check_output(path, overwrite=overwrite, suffixes=PICTURES, inputs=list(_inputs(identities.tracklets)))
    visits = np.bincount(identities.numbers, minlength=1)[1:]
    shown = np.argsort(-visits, kind="stable")[:rows] + 1
    wanted = np.flatnonzero(np.isin(identities.numbers, shown))
    frames = _middle_frames(identities.tracklets, wanted)
    lines = []
    for number in shown.tolist():
        own = np.flatnonzero(identities.numbers == number)
        best = max(own.tolist(), key=lambda row: identities[row].confidence)
        count = f"{len(own)} visit{'s' * (len(own) != 1)}"
        first = Tile(frames.get(best), identities[best].person, count)
        for begin in range(0, len(own), VISITS_PER_LINE):
            tiles = [Tile(frames.get(row), *_caption(identities, row)) for row in own[begin : begin + VISITS_PER_LINE]]
            lines.append([first if not begin else Tile(None, ""), *tiles])
    image = draw_ranking(lines)
    with replacing(path) as unfinished:
        image.save(unfinished)


def _caption(identities: Identities, row: int) -> tuple[str, str]:
    """Return the two lines below a visit: where it is, and when or how sure."""
    one = identities[row]
    several = len({*identities.tracklets.cameras}) > 1
    name = f"{one.tracklet}, {one.camera}" if several else one.tracklet
    return name, f"{100 * one.confidence:.0f} %" if one.first is None else f"{one.first}-{one.last}"


def _middle_frames(tracklets: TrackletList, rows: np.ndarray) -> dict[int, Tensor]:
    """Return the middle frame of some tracklets, by row."""
    found: dict[int, Tensor] = {}
    for place, part in enumerate(tracklets.embeddings):
        own = rows[tracklets.sets[rows] == place].tolist()
        if own:
            images = open_embedded(part, None, "source").middle_frames([tracklets.names[row] for row in own])
            found |= {row: images[tracklets.names[row]] for row in own if tracklets.names[row] in images}
    return found


def _inputs(tracklets: TrackletList) -> Iterator[str | Path]:
    """Yield what no output may replace."""
    for part in tracklets.embeddings:
        if part.path is not None:
            yield part.path
        yield from (part.metadata[name] for name in ("source", "tracks") if part.metadata.get(name))
