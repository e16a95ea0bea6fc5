"""Tracklets of one or several sets of embeddings as one list: cameras, frames and labels beside the vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nl3d.embedding.embeddings import Embeddings, require_same_maker
from nl3d.retrieval.scoring.labels import read_labels

UNKNOWN = -1
"""First and last frame of a tracklet whose frames are not known."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackletList:
    """Tracklets of several sets of embeddings, in their order.

    Args:
        vectors: ``(N, D)``.
        names: Name of each tracklet in its set.
        cameras: Label of each tracklet's camera; the name of its set where the set has none.
        videos: ``(N,)`` int64, number of each tracklet's video: only frames of one video are compared.
        frames: ``(N, 2)`` int64, first and last frame in the video, inclusive; :data:`UNKNOWN` where not known.
        people: Label of each tracklet's person, None where not known.
        sets: ``(N,)`` int64, number of each tracklet's set.
        embeddings: The sets.
        titles: Name of each set.
        notes: What was assumed, one sentence each.
    """

    vectors: Tensor
    names: tuple[str, ...]
    cameras: tuple[str, ...]
    videos: NDArray[np.int64]
    frames: NDArray[np.int64]
    people: tuple[str | None, ...]
    sets: NDArray[np.int64]
    embeddings: tuple[Embeddings, ...]
    titles: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def metadata(self) -> Mapping[str, str]:
        """Metadata of the first set that names its network, else of the first."""
        known = (part.metadata for part in self.embeddings if part.metadata.get("network"))
        return next(known, self.embeddings[0].metadata)

    @property
    def timed(self) -> NDArray[np.bool_]:
        """``(N,)``: whether the frames of each tracklet are known."""
        return self.frames[:, 0] != UNKNOWN


def gather_tracklets(
    sets: Sequence[Embeddings | str | Path] | Embeddings | str | Path, *, labels: str | Path | None = None
) -> TrackletList:
    """Put the tracklets of several sets into one list.

    Each set is one video under one camera, unless it has labels of cameras. Sets of one source are one video.

    Args:
        sets: Embeddings, or files of them.
        labels: Table of labels (``.csv``) as for ``nl3d evaluate``: people, and cameras if it has them, by the names
            of the tracklets. The labels of the embeddings, if left out.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If there is no tracklet, the sets come from several networks, or a tracklet ends before it starts.
    """
    given = [sets] if isinstance(sets, Embeddings | str | Path) else list(sets)
    opened = [part if isinstance(part, Embeddings) else Embeddings.open(part) for part in given]
    if not sum(map(len, opened)):
        raise ValueError(f"embeddings must hold at least one tracklet, got none in {len(opened)} sets")
    for part in opened[1:]:
        if part.shape[1] != opened[0].shape[1]:
            raise ValueError(
                f"embeddings must be of one width, by one network, got {opened[0].shape[1]} and {part.shape[1]}"
            )
        require_same_maker(opened[0].metadata, part.metadata)
    if labels is not None:
        opened = _label(opened, labels)
    titles = _titles(opened)
    videos: dict[tuple[str, str], int] = {}
    numbers, cameras, notes = [], [], []
    for title, part in zip(titles, opened, strict=True):
        own = part.cameras or (None,) * len(part)
        cameras += [title if label is None else label for label in own]
        source = part.metadata.get("source") or f"set {title}"
        numbers += [videos.setdefault((source, label or ""), len(videos)) for label in own]
    frames = [_frames(part) for part in opened]
    if len(opened) > 1 and not any(part.cameras for part in opened):
        notes.append(f"each of the {len(opened)} sets is taken as a camera of its own")
    if any((rows[:, 0] == UNKNOWN).any() for rows in frames):
        notes.append("frames in the video are not known for all tracklets, so those seen at once may be joined")
    return TrackletList(
        vectors=torch.cat([part.embeddings for part in opened]),
        names=tuple(name for part in opened for name in part.names),
        cameras=tuple(cameras),
        videos=np.array(numbers, dtype=np.int64),
        frames=np.concatenate(frames),
        people=tuple(person for part in opened for person in part.people or (None,) * len(part)),
        sets=np.repeat(np.arange(len(opened)), [len(part) for part in opened]),
        embeddings=tuple(opened),
        titles=tuple(titles),
        notes=tuple(notes),
    )


def _label(sets: Sequence[Embeddings], labels: str | Path) -> list[Embeddings]:
    """Return the sets with the labels of a table; tracklets that it does not name have none."""
    named = {row.name: (row.person, row.camera) for row in read_labels(labels).rows}
    names = [name for part in sets for name in part.names]
    if len(set(names)) < len(names):
        raise ValueError(
            f"tracklets must have names of their own for the table of labels {str(labels)!r}, but several sets have "
            f"{Counter(names).most_common(1)[0][0]!r}; embed them with labels, or give one set at a time"
        )
    if not named.keys() & set(names):
        raise ValueError(
            f"table of labels {str(labels)!r} must name tracklets of the embeddings, such as {names[0]!r}; it names "
            f"{', '.join(map(repr, list(named)[:3]))}"
        )
    labelled = []
    for part in sets:
        people, cameras = zip(*(named.get(name, (None, None)) for name in part.names), strict=True)
        columns = part.columns() | {"pids": None, "camids": None, "people": people}
        columns["cameras"] = cameras if any(cameras) else part.cameras
        labelled.append(Embeddings(part.embeddings, metadata=part.metadata, **columns))
        labelled[-1].path = part.path
    return labelled


def _titles(sets: Sequence[Embeddings]) -> list[str]:
    """Name each set by its file or source, with a number where two have one name."""
    paths = [part.path or Path(part.metadata.get("source") or "") for part in sets]
    stems = [path.stem or str(place) for place, path in enumerate(paths, 1)]
    repeated = Counter(stems)
    return [f"{stem} ({place})" if repeated[stem] > 1 else stem for place, stem in enumerate(stems, 1)]


def _frames(part: Embeddings) -> NDArray[np.int64]:
    """Return first and last frames in the video; ranges of tracklets that were cut out before are mere lengths."""
    cut_before = part.metadata.get("tracks") == ""
    if part.frame_ranges is None or cut_before:
        return np.full((len(part), 2), UNKNOWN, dtype=np.int64)
    ranges = part.frame_ranges.numpy()
    if (wrong := ranges[:, 1] < ranges[:, 0]).any():
        row = int(wrong.argmax())
        raise ValueError(
            f"a tracklet must end after it starts, but {part.names[row]!r} has the frames "
            f"{ranges[row, 0]} to {ranges[row, 1]}; swap first and last frame"
        )
    return ranges
