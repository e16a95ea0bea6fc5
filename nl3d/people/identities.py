"""Identities: which tracklets show one person, who it is if known, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nl3d.embedding.embeddings import Embeddings, html_table, import_pandas
from nl3d.people.clustering import Clusters, cluster
from nl3d.people.constraints import TravelTimes, make_constraints
from nl3d.people.cut import Cut, choose_cut
from nl3d.people.tracklets import TrackletList, gather_tracklets
from nl3d.retrieval.calibration import Calibration, Decision

Sets: TypeAlias = "Sequence[Embeddings | str | Path] | Embeddings | str | Path"


class Assignment(NamedTuple):
    """Whom one tracklet shows.

    Attributes:
        tracklet: Its name.
        camera: Its camera.
        first: Its first frame, None if not known.
        last: Its last frame, likewise.
        person: Label of a known person, or ``person 1``, ``person 2``, ... in the order of appearance.
        confidence: Probability that it shows the person of the others with that label; of a person seen once, that
            it shows none of the other people. Pairs of one person and of two count as equally likely.
        decision: The calibration's word for it: "same" as the others, "different" from all of them if it is the
            only one, or "unsure".
    """

    tracklet: str
    camera: str
    first: int | None
    last: int | None
    person: str
    confidence: float
    decision: Decision


@dataclass(frozen=True, eq=False, repr=False)
class Identities:
    """The people in some tracklets.

    Args:
        tracklets: The tracklets.
        assignments: One for each, in their order.
        numbers: ``(N,)`` int64, number of each one's person, from 1, in the order of appearance.
        cut: Where clustering stopped.
        notes: What was assumed, one sentence each.
    """

    tracklets: TrackletList
    assignments: tuple[Assignment, ...]
    numbers: NDArray[np.int64]
    cut: Cut
    notes: tuple[str, ...]

    @property
    def people(self) -> tuple[str, ...]:
        """Labels of the people, in the order of their numbers."""
        named = {number: one.person for number, one in zip(self.numbers.tolist(), self.assignments, strict=True)}
        return tuple(named[number] for number in sorted(named))

    def __len__(self) -> int:
        return len(self.assignments)

    def __iter__(self) -> Iterator[Assignment]:
        return iter(self.assignments)

    def __getitem__(self, row: int) -> Assignment:
        return self.assignments[row]

    def __repr__(self) -> str:
        cameras = len({*self.tracklets.cameras})
        again = int((np.bincount(self.numbers) > 1).sum())
        where = f"{len(self)} tracklets under {cameras} camera{'s' * (cameras != 1)}"
        return f"Identities({where}: {len(self.people)} people, {again} of them seen more than once)"

    def _repr_html_(self) -> str:
        rows: list[Sequence[str]] = [("person", "tracklets", "cameras", "confidence")]
        for number, person in list(enumerate(self.people, 1))[:10]:
            own = [one for one, other in zip(self.assignments, self.numbers, strict=True) if other == number]
            cameras = ", ".join(dict.fromkeys(one.camera for one in own))
            rows.append(
                (person, ", ".join(one.tracklet for one in own), cameras, f"{min(o.confidence for o in own):.2f}")
            )
        return html_table(repr(self) + ("" if len(self.people) <= 10 else "; the first ten:"), rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, ready for JSON."""
        return {
            "people": list(self.people),
            "cut": self.cut.distance,
            "same_share": self.cut.same_share,
            "known_share": self.cut.known_share,
            "notes": list(self.notes),
            "tracklets": [one._asdict() for one in self.assignments],
        }

    def to_pandas(self) -> Any:  # pandas.DataFrame
        """Return a ``pandas.DataFrame`` with one row per tracklet.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        return import_pandas().DataFrame(list(self.assignments), columns=list(Assignment._fields))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one row per tracklet, whole or not at all: ``.csv``, or ``.json`` with the decisions.

        Raises:
            FileExistsError: If the file exists and ``overwrite`` is off.
            ValueError: If it has another suffix.
        """
        from nl3d.people.outputs import save_table

        save_table(self, path, overwrite=overwrite)

    def save_tracks(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the boxes of all videos with people's numbers in place of track ids, as MOTChallenge text.

        Args:
            path: A ``.txt`` file for one video; a folder, which gets one file per set, for several.
            overwrite: Whether files that exist may be replaced.

        Raises:
            FileExistsError: If a file exists and ``overwrite`` is off.
            ValueError: If a set was not embedded from a video with boxes.
        """
        from nl3d.people.outputs import save_tracks

        save_tracks(self, path, overwrite=overwrite)

    def save_picture(self, path: str | Path, *, rows: int = 50, overwrite: bool = False) -> None:
        """Draw one row per person with the middle frame of every visit; the suffix is the format.

        Args:
            path: The picture.
            rows: People to draw, those seen most often first.
            overwrite: Whether a file that exists may be replaced.

        Raises:
            FileExistsError: If the file exists and ``overwrite`` is off.
            FileNotFoundError: If the frames no longer exist.
            ValueError: If the suffix is unknown, or the tracklets were embedded from memory.
        """
        from nl3d.people.outputs import save_picture

        save_picture(self, path, rows=rows, overwrite=overwrite)


def identify(
    embeddings: Sets,
    *,
    known: Sets | None = None,
    travel_times: TravelTimes | None = None,
    calibration: Calibration | None = None,
    cut: float | None = None,
) -> Identities:
    """Find which tracklets of one or many cameras show one person.

    Tracklets are joined by average linkage (:func:`nl3d.people.clustering.cluster`) up to a distance that is chosen
    from the tracklets themselves (:func:`nl3d.people.cut.choose_cut`). Two tracks seen in the same frame of one video
    are never joined, nor are two that ``travel_times`` rule out.

    Args:
        embeddings: Embeddings, or files of them. Each is one camera, unless it has labels of cameras.
        known: Embeddings with labels of people. A tracklet joined to them gets their label.
        travel_times: Times between cameras, see :func:`nl3d.read_travel_times`.
        calibration: The network's; the one that comes with the package, if left out.
        cut: Linkage up to which clusters are joined, in place of the chosen one.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If there is no tracklet, networks differ, a tracklet ends before it starts, ``known`` has no labels,
            or travel times name a camera that no tracklet has.

    Example:
        >>> vectors = torch.tensor([[0.0, 9.0], [0.1, 9.0], [30.0, 0.0]])
        >>> [found.person for found in identify(nl3d.Embeddings(vectors), cut=5)]
        ['person 1', 'person 1', 'person 2']
    """
    if cut is not None and not 0 <= cut < float("inf"):
        raise ValueError(f"cut must be a distance of at least 0, got {cut}")
    asked = gather_tracklets(embeddings)
    everything, people, labels = _add_known(asked, known)
    notes = list(asked.notes)
    if calibration is None:
        calibration = Calibration.find(everything.metadata)
        if calibration is None:
            calibration = Calibration.bundled()
            notes.append(
                "no calibration is known for this network; that of the bundled weights is scaled to these distances, "
                "so confidences are rough, and nl3d calibrate makes a better one"
            )
    else:
        calibration.require_fits(everything.metadata, "euclidean")
    constraints = make_constraints(everything, people, travel_times)
    chosen = choose_cut(everything.vectors[: len(asked)], constraints, calibration)
    if chosen.distance == 0 and cut is None and len(asked) > 1:
        notes.append(
            "the network cannot tell so many people apart, so that none are joined; a calibration from labels of these "
            "cameras (nl3d calibrate) or a cut by hand may help"
        )
    if cut is not None:
        chosen = Cut(cut, chosen.calibration, chosen.same_share, chosen.known_share)
    clusters = cluster(everything.vectors, constraints, chosen.distance, people)
    found = clusters.labels()
    confidences, decisions = _confidences(clusters, found, chosen.calibration)
    names, numbers = _names(found[: len(asked)], found[len(asked) :], people[len(asked) :], labels)
    frames = [tuple(pair) if pair[0] >= 0 else (None, None) for pair in asked.frames.tolist()]
    assignments = tuple(
        Assignment(name, camera, first, last, person, float(confidence), decision)
        for name, camera, (first, last), person, confidence, decision in zip(
            asked.names, asked.cameras, frames, names, confidences, decisions, strict=False
        )
    )
    return Identities(asked, assignments, numbers, chosen, tuple(notes))


def _add_known(asked: TrackletList, known: Sets | None) -> tuple[TrackletList, NDArray[np.int64], list[str]]:
    """Return all tracklets, the known ones last, the number of each one's known person, and the labels."""
    if known is None:
        return asked, np.full(len(asked), -1), []
    enrolled = gather_tracklets(known)
    if not any(enrolled.people):
        raise ValueError("known must have labels of people, got none; embed them from a table with a column pid")
    everything = gather_tracklets([*asked.embeddings, *enrolled.embeddings])
    labels = sorted({label for label in enrolled.people if label is not None})
    numbers = {label: number for number, label in enumerate(labels)}
    own = [-1 if label is None else numbers[label] for label in enrolled.people]
    return everything, np.array([-1] * len(asked) + own), labels


def _confidences(
    clusters: Clusters, found: NDArray[np.int64], calibration: Calibration
) -> tuple[NDArray[np.float64], list[Decision]]:
    """Return the probability of each assignment, and what the calibration calls it."""
    vectors = clusters.points.double()
    squared = np.empty(len(found))
    single = np.zeros(len(found), dtype=bool)
    alone = np.array([place for place in clusters.alive() if clusters.sizes[place] == 1], dtype=np.int64)
    clusters.find_nearest(alone, np.inf)
    for place in clusters.alive():
        members, size = clusters.members[place], int(clusters.sizes[place])
        if size == 1:
            single[members] = True
            other = clusters.sizes[clusters.nearest[place]]  # any size if there is none, at an infinite linkage
            squared[members] = clusters.linkage[place] / np.sqrt(2.0 * other / (other + 1.0))
        else:  # mean squared distance to the other members
            apart = (vectors[members] - clusters.centres[place].double()).square().sum(1)
            squared[members] = (apart + clusters.variances[place].double()).numpy() * size / (size - 1)
    distances = torch.from_numpy(np.sqrt(squared.clip(0)))
    probability = calibration.probability(distances).numpy()
    return np.where(single, 1 - probability, probability), calibration.decide(distances)


def _names(
    found: NDArray[np.int64], anchored: NDArray[np.int64], people: NDArray[np.int64], labels: list[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Name the clusters of the tracklets, and number them from 1 in the order of appearance."""
    named = {int(group): labels[person] for group, person in zip(anchored, people, strict=True) if person >= 0}
    free = (name for place in range(1, len(found) + len(labels) + 1) if (name := f"person {place}") not in labels)
    numbers: dict[int, int] = {}
    for group in found.tolist():
        numbers.setdefault(group, len(numbers) + 1)
        if group not in named:
            named[group] = next(free)
    return [named[group] for group in found.tolist()], np.array([numbers[group] for group in found.tolist()])
