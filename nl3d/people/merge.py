"""Longer tracks: a tracker's fragments of one video joined where they show one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nl3d.data.readers.boxes import Boxes, read_boxes
from nl3d.embedding.embeddings import Embeddings
from nl3d.files import check_output
from nl3d.people.identities import Identities, identify
from nl3d.people.outputs import box_options, write_tracks
from nl3d.retrieval.calibration import Calibration


@dataclass(frozen=True, eq=False, repr=False)
class Merged:
    """Which tracks of a video became one.

    Args:
        identities: The people that they were joined by.
        numbers: Id of the longer track of each track, by name: the least id of those that it is made of.
    """

    identities: Identities
    numbers: Mapping[str, int]

    @property
    def embeddings(self) -> Embeddings:
        """The tracks."""
        return self.identities.tracklets.embeddings[0]

    @property
    def boxes(self) -> Boxes:
        """Boxes of the tracks, as the tracker wrote them."""
        return read_boxes(self.embeddings.metadata["tracks"], box_options(self.embeddings))

    def __repr__(self) -> str:
        before, after = len(self.numbers), len({*self.numbers.values()})
        return f"Merged({before} tracks became {after}, {before - after} joined to an earlier one)"

    def save(self, path: str | Path, *, overwrite: bool = False) -> int:
        """Write all boxes with the ids of the longer tracks, as MOTChallenge text; return their number.

        Tracks without a vector keep their id.

        Raises:
            FileExistsError: If the file exists and ``overwrite`` is off.
            ValueError: If the suffix is not ``.txt``, or the file is an input.
        """
        about = self.embeddings.metadata
        inputs = (about["source"], about["tracks"], self.embeddings.path)
        path = check_output(path, overwrite=overwrite, suffixes=(".txt",), inputs=inputs)
        return write_tracks(path, self.embeddings, self.numbers, keep_others=True)


def merge(
    embeddings: Embeddings | str | Path,
    *,
    max_gap: int | None = None,
    calibration: Calibration | None = None,
    cut: float | None = None,
) -> Merged:
    """Join the fragments of a tracker where they show one person; tracks seen at once are never joined.

    Args:
        embeddings: Tracks of one video with boxes, as :func:`nl3d.embed` gives them, or a file of them.
        max_gap: Frames for which a person may be out of sight within a track; any number, if left out, so that people
            who come back get their old id.
        calibration: As for :func:`nl3d.identify`.
        cut: As for :func:`nl3d.identify`.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the tracks are not of a video with boxes, or ``max_gap`` is negative.
    """
    if max_gap is not None and max_gap < 0:
        raise ValueError(f"max_gap must be a number of frames, at least 0, got {max_gap}")
    opened = embeddings if isinstance(embeddings, Embeddings) else Embeddings.open(embeddings)
    if not opened.metadata.get("tracks") or opened.frame_ranges is None:
        raise ValueError("tracks must come from a video with boxes to be joined; embed one with tracks")
    found = identify(opened, calibration=calibration, cut=cut)
    numbers: dict[str, int] = {}
    open_tracks: dict[str, tuple[int, int]] = {}  # last frame and id of each person's track
    ranges, ids = opened.frame_ranges.tolist(), opened.track_ids.tolist()
    for row in sorted(range(len(opened)), key=lambda row: ranges[row]):
        first, last = ranges[row]
        end, number = open_tracks.get(found[row].person, (None, 0))
        if end is None or (max_gap is not None and first - end - 1 > max_gap):
            number = ids[row]
        numbers[opened.names[row]] = number
        open_tracks[found[row].person] = last, number
    return Merged(found, numbers)
