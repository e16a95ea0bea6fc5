"""A data set for re-identification: who to train on, who to look for, and where."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from nl3d.data.tracklets import Tracklet

PARTS = ("train", "query", "gallery")


class Counts(NamedTuple):
    """How much there is of a part of a data set; people are counted without junk and distractors."""

    tracklets: int
    pids: int
    frames: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ReIDDataset:
    """Tracklets to train on, to look for (query) and to search (gallery), and how the ranking is to be scored.

    Training pids go from 0 without gaps, in the order of the sorted labels, so that a classifier can take them.
    Query and gallery keep the data set's own numbers where it has numbers. Cameras keep theirs everywhere. Training and
    test people are different ones, whatever their numbers.

    Args:
        name: What to call it beside results.
        protocol: Which of several conventions in use was followed, for the same purpose.
        train: Tracklets to train on.
        query: Tracklets to look for.
        gallery: Tracklets to search; whether it holds the queries too, the protocol says.
        train_labels: The data set's own label of each training pid.
        junk_pids: Gallery tracklets of these are nobody's: left out of every ranking.
        distractor_pids: Gallery tracklets of these are wrong answers to every query.
        ap: The rule for average precision that the protocol asks for, as :func:`nl3d.metrics.evaluate` takes it.
        split: Which of ``num_splits`` random splits this is, from 0. Results are averaged over all of them.
        num_splits: Number of splits.

    Raises:
        ValueError: If a tracklet lacks its pid or camid, a training pid lies outside the numbering, or a query is junk
            or a distractor.
    """

    name: str
    protocol: str = "official"
    train: Sequence[Tracklet] = ()
    query: Sequence[Tracklet] = ()
    gallery: Sequence[Tracklet] = ()
    train_labels: Sequence[Any] = ()
    junk_pids: tuple[int, ...] = ()
    distractor_pids: tuple[int, ...] = ()
    ap: Literal["interpolated", "trapezoid"] = "interpolated"
    split: int = 0
    num_splits: int = 1

    def __post_init__(self) -> None:
        for part in PARTS:
            tracklets = tuple(getattr(self, part))
            object.__setattr__(self, part, tracklets)
            for tracklet in tracklets:
                if tracklet.pid is None or tracklet.camid is None:
                    raise ValueError(f"{part} must have pid and camid throughout, but {tracklet.name!r} lacks one")
        labels = len(self.train_labels)
        stray = next((t for t in self.train if not 0 <= _known(t.pid) < labels), None)
        if stray is not None:
            raise ValueError(f"train pids must go from 0 to {labels - 1}, one a label, got {stray.pid}")
        nobody = {*self.junk_pids, *self.distractor_pids}
        nameless = next((t for t in self.query if t.pid in nobody), None)
        if nameless is not None:
            raise ValueError(f"query must hold people, but {nameless.name!r} has pid {nameless.pid}")

    @property
    def num_train_pids(self) -> int:
        """People to train on: the size of a classifier."""
        return len(self.train_labels)

    def counts(self) -> dict[str, Counts]:
        """Count train, query and gallery; junk and distractors count as tracklets and frames, not as people."""
        nobody = {*self.junk_pids, *self.distractor_pids}  # training pids are numbers, of which 0 is a person
        return {"train": count(self.train), "query": count(self.query, nobody), "gallery": count(self.gallery, nobody)}

    def evaluate_options(self) -> dict[str, Any]:
        """What :func:`nl3d.metrics.evaluate` has to be told to follow the protocol."""
        return {"junk_pids": self.junk_pids, "distractor_pids": self.distractor_pids, "ap": self.ap}

    def queries_without_match(self) -> list[int]:
        """Places of the queries whose person no other camera of the gallery sees; no ranking can score these.

        MARS has none officially, and 140 where the queries are taken out of the gallery.
        """
        cameras: dict[int, set[int]] = {}
        for tracklet in self.gallery:
            cameras.setdefault(_known(tracklet.pid), set()).add(_known(tracklet.camid))
        return [
            place
            for place, tracklet in enumerate(self.query)
            if not cameras.get(_known(tracklet.pid), set()) - {_known(tracklet.camid)}
        ]


def count(tracklets: Iterable[Tracklet], nobody: Collection[int] = ()) -> Counts:
    """Count tracklets, people and frames."""
    tracklets = list(tracklets)
    return Counts(len(tracklets), len({t.pid for t in tracklets}.difference(nobody)), sum(map(len, tracklets)))


def check_protocol(protocol: str) -> None:
    """Refuse any other protocol than the two of data sets whose gallery officially holds the queries.

    Raises:
        ValueError: If it is neither ``"official"`` nor ``"torchreid"``.
    """
    if protocol not in ("official", "torchreid"):
        raise ValueError(f"protocol must be 'official' or 'torchreid', got {protocol!r}")


def check_count(what: str, found: int, official: int) -> None:
    """Refuse another number than the official one.

    Raises:
        ValueError: If they differ.
    """
    if found != official:
        raise ValueError(
            f"{what} must be {official:,} in the published data set, got {found:,}; "
            "give check_counts=False if yours is meant to be another"
        )


def _known(value: int | None) -> int:
    assert value is not None
    return value
