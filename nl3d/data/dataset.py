"""Data sets for re-identification: training tracklets, queries, a gallery, and the protocol of the ranking."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from nl3d.data.labels import DISTRACTOR, JUNK, number_classes, number_labels
from nl3d.data.tracklets import Frame, Tracklet

PARTS = ("train", "query", "gallery")


class Counts(NamedTuple):
    """Size of a part of a data set; junk and distractors do not count as people."""

    tracklets: int
    pids: int
    frames: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ReIDDataset:
    """Tracklets for training, queries and a gallery, and the protocol by which rankings are scored.

    Training pids are numbers of classes: from 0 without gaps, in the order of the sorted labels. In query and gallery,
    labels that are whole numbers keep their number, as do those of cameras everywhere. Training and test people are
    different, even if a number is the same.

    Args:
        name: Name to print beside results.
        protocol: Convention that was followed, to print beside results.
        train: Training tracklets.
        query: Tracklets to look for.
        gallery: Tracklets to search; the protocol decides whether it holds the queries too.
        train_labels: Label of each training pid.
        junk_pids: Pids of gallery tracklets that every ranking leaves out.
        distractor_pids: Pids of gallery tracklets that are wrong answers to every query.
        ap: Rule for average precision of the protocol, see :func:`nl3d.metrics.evaluate`.
        split: Number of the random split, from 0. Results are averaged over all splits.
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
            raise ValueError(f"train pids must go from 0 to {labels - 1}, one per label, got {stray.pid}")
        not_people = {*self.junk_pids, *self.distractor_pids}
        nameless = next((t for t in self.query if t.pid in not_people), None)
        if nameless is not None:
            raise ValueError(f"query must hold people, but {nameless.name!r} has pid {nameless.pid}")

    @property
    def num_train_pids(self) -> int:
        """Number of people to train on, the size of a classifier."""
        return len(self.train_labels)

    def counts(self) -> dict[str, Counts]:
        """Count train, query and gallery. Junk and distractors count as tracklets and frames, not as people."""
        not_people = {*self.junk_pids, *self.distractor_pids}  # but training pid 0 is a person
        return {
            "train": count(self.train),
            "query": count(self.query, not_people),
            "gallery": count(self.gallery, not_people),
        }

    def evaluate_options(self) -> dict[str, Any]:
        """Arguments of :func:`nl3d.metrics.evaluate` by which it follows the protocol."""
        return {"junk_pids": self.junk_pids, "distractor_pids": self.distractor_pids, "ap": self.ap}

    def queries_without_match(self) -> list[int]:
        """Places of the queries without a match under another camera, which no ranking can score.

        MARS has none in the official protocol, and 140 if the queries are taken out of the gallery.
        """
        cameras: dict[int, set[int]] = {}
        for tracklet in self.gallery:
            cameras.setdefault(_known(tracklet.pid), set()).add(_known(tracklet.camid))
        return [
            place
            for place, tracklet in enumerate(self.query)
            if not cameras.get(_known(tracklet.pid), set()) - {_known(tracklet.camid)}
        ]


class LabelledRow(NamedTuple):
    """A tracklet as a reader finds it; people and cameras are labels as text."""

    part: str
    person: str
    camera: str
    name: str
    frames: Sequence[Frame]
    clothes: str | None = None


def make_dataset(
    rows: Sequence[LabelledRow],
    *,
    name: str,
    junk_pids: tuple[int, ...] = (),
    distractor_pids: tuple[int, ...] = (),
) -> ReIDDataset:
    """Number the labels of rows and make a data set of them.

    Rows of the part ``""`` are a test set without queries, as in MARS: all are the gallery, and the first tracklet of
    each person under each camera is a query too.
    """
    not_people = {*junk_pids, *distractor_pids}
    people = number_labels((row.person for row in rows if row.part != "train"), {JUNK, DISTRACTOR, *not_people})
    classes = number_classes(row.person for row in rows if row.part == "train")
    cameras = number_labels(row.camera for row in rows)
    found: dict[str, list[Tracklet]] = {part: [] for part in ("", *PARTS)}
    for part, person, camera, title, frames, clothes in rows:
        pid = (classes if part == "train" else people)[person]
        found[part].append(Tracklet(frames, pid, cameras[camera], title, person, camera, clothes))
    firsts = {(t.pid, t.camid): t for t in reversed(found[""]) if t.pid not in not_people}
    return ReIDDataset(
        name=name,
        protocol="one query of each person and camera, queries in the gallery" if found[""] else "parts",
        train=found["train"],
        query=found["query"] + [t for t in found[""] if firsts.get((t.pid, t.camid)) is t],
        gallery=found["gallery"] + found[""],
        train_labels=tuple(classes),
        junk_pids=junk_pids,
        distractor_pids=distractor_pids,
    )


def count(tracklets: Iterable[Tracklet], not_people: Collection[int] = ()) -> Counts:
    """Count tracklets, people and frames."""
    tracklets = list(tracklets)
    return Counts(len(tracklets), len({t.pid for t in tracklets}.difference(not_people)), sum(map(len, tracklets)))


def check_protocol(protocol: str) -> None:
    """Refuse any other protocol than the two of data sets whose gallery officially holds the queries."""
    if protocol not in ("official", "torchreid"):
        raise ValueError(f"protocol must be 'official' or 'torchreid', got {protocol!r}")


def check_count(what: str, found: int, official: int) -> None:
    """Refuse a number other than the official one."""
    if found != official:
        raise ValueError(
            f"{what} must be {official:,} in the published data set, got {found:,}; "
            "give check_counts=False if yours is meant to be another"
        )


def _known(value: int | None) -> int:
    assert value is not None
    return value
