"""Pairs of tracklets that cannot be one person: seen at once, or too far apart for the time between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nl3d.data.readers.table import Table
from nl3d.people.tracklets import TrackletList


@dataclass(frozen=True, eq=False, kw_only=True)
class TravelTimes:
    """Times that it takes from one camera to another.

    Args:
        cameras: Labels of the cameras.
        least: ``(C, C)`` float64, seconds from leaving one camera's view to entering the other's; 0 where not known.
        most: ``(C, C)`` float64, likewise; infinite where not known.
        frame_rate: Frames per second of all videos.
        starts: ``(C,)`` float64, seconds at which each camera's first frame was taken, on one clock.
    """

    cameras: tuple[str, ...]
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    frame_rate: float
    starts: NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Constraints:
    """What is known of pairs of tracklets before any distance is measured.

    Two tracklets of one video whose frames overlap are two people. With travel times, so are two of different cameras
    that are too close in time, or too far apart. The frames of a tracklet count from its first to its last: a gap
    within it counts too.

    Args:
        videos: ``(N,)`` int64, number of each tracklet's video.
        frames: ``(N, 2)`` int64, first and last frame, inclusive; -1 where not known.
        cameras: ``(N,)`` int64, number of each tracklet's camera among those of ``travel``; any if there are none.
        people: ``(N,)`` int64, number of a known person, -1 for none: two known people are never joined.
        travel: Times between cameras, if known.
    """

    videos: NDArray[np.int64]
    frames: NDArray[np.int64]
    cameras: NDArray[np.int64]
    people: NDArray[np.int64]
    travel: TravelTimes | None = None

    def forbidden(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether pairs of tracklets cannot be one person; the two arrays are broadcast."""
        rows, others = np.asarray(rows), np.asarray(others)
        first, last = self.frames[:, 0], self.frames[:, 1]
        known = (first[rows] >= 0) & (first[others] >= 0)
        same_video = self.videos[rows] == self.videos[others]
        at_once = (first[rows] <= last[others]) & (first[others] <= last[rows])
        one, other = self.people[rows], self.people[others]
        found = (known & same_video & at_once) | ((one >= 0) & (other >= 0) & (one != other))
        if self.travel is not None:
            found |= known & ~same_video & self._impossible(rows, others)
        return found & (rows != others)

    def _impossible(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the time between two tracklets of different cameras is outside its bounds."""
        assert self.travel is not None
        one, other = self.cameras[rows], self.cameras[others]
        times = self.frames / self.travel.frame_rate
        start = self.travel.starts
        begin, end = times[:, 0], times[:, 1] + 1 / self.travel.frame_rate
        onward = begin[others] + start[other] - end[rows] - start[one]  # from rows to others
        back = begin[rows] + start[one] - end[others] - start[other]
        forth = onward >= back
        gap = np.where(forth, onward, back)  # negative while both are seen
        least = np.where(forth, self.travel.least[one, other], self.travel.least[other, one])
        most = np.where(forth, self.travel.most[one, other], self.travel.most[other, one])
        return ((least > 0) & (gap < least)) | (gap > most)


def make_constraints(
    tracklets: TrackletList, people: NDArray[np.int64] | None = None, travel: TravelTimes | None = None
) -> Constraints:
    """Collect what is known of some tracklets.

    Args:
        tracklets: The tracklets.
        people: ``(N,)``, number of each one's person, -1 if not known.
        travel: Times between cameras.

    Raises:
        ValueError: If the travel times name a camera that no tracklet has.
    """
    cameras = np.zeros(len(tracklets), dtype=np.int64)
    if travel is not None:
        present = {*tracklets.cameras}
        unknown = next((camera for camera in travel.cameras if camera not in present), None)
        if unknown is not None:
            raise ValueError(
                f"travel times must name cameras of the tracklets, which are {_some(present)}; got {unknown!r}"
            )
        numbers = {camera: number for number, camera in enumerate(travel.cameras)}
        named = [numbers.get(camera, len(numbers)) for camera in tracklets.cameras]
        cameras, travel = np.array(named), _padded(travel)
    return Constraints(
        videos=tracklets.videos,
        frames=tracklets.frames,
        cameras=cameras,
        people=np.full(len(tracklets), -1) if people is None else people,
        travel=travel,
    )


def read_travel_times(path: str | Path, *, frame_rate: float, starts: Mapping[str, float] | None = None) -> TravelTimes:
    """Read a CSV table of travel times.

    Its columns are ``camera_a``, ``camera_b``, ``min_seconds`` and, if known, ``max_seconds``. A row holds in both
    directions, unless another row gives the way back.

    Args:
        path: The table.
        frame_rate: Frames per second of all videos.
        starts: Seconds at which a camera's first frame was taken, on one clock; 0 for cameras left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a time is no number or below 0, a pair is given twice, ``max_seconds`` is
            below ``min_seconds``, ``starts`` names a camera that the table lacks, or the frame rate is not above 0.
    """
    if not 0 < frame_rate < float("inf"):
        raise ValueError(f"frame_rate must be above 0 and finite, got {frame_rate}")
    table = Table(path, what="table of travel times")
    table.require(("camera_a", "camera_b", "min_seconds"))
    columns = ("camera_a", "camera_b", "min_seconds", "max_seconds")
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for line, (one, other, least, most) in table.rows(columns, filled=columns[:3], labels=columns[:2]):
        try:
            bounds = float(least), float(most or "inf")
        except ValueError:
            raise table.error(line, f"times must be numbers of seconds, got {least!r} and {most!r}") from None
        if not 0 <= bounds[0] <= bounds[1] or bounds[0] == float("inf"):
            raise table.error(line, f"times must be 0 <= min_seconds <= max_seconds, got {least!r} and {most!r}")
        if one == other or (one, other) in found:
            raise table.error(line, f"a row must be of two cameras, and the only one for them, got {one!r}, {other!r}")
        found[one, other] = bounds
    cameras = tuple(dict.fromkeys(camera for pair in found for camera in pair))
    unknown = next((camera for camera in starts or {} if camera not in cameras), None)
    if unknown is not None:
        raise ValueError(f"starts must name cameras of {str(path)!r}, which are {_some(cameras)}; got {unknown!r}")
    numbers = {camera: number for number, camera in enumerate(cameras)}
    least_times, most_times = np.zeros((len(cameras),) * 2), np.full((len(cameras),) * 2, np.inf)
    for (one, other), bounds in found.items():
        for way in [(one, other)] if (other, one) in found else [(one, other), (other, one)]:
            place = numbers[way[0]], numbers[way[1]]
            least_times[place], most_times[place] = bounds
    begun = np.array([(starts or {}).get(camera, 0.0) for camera in cameras])
    return TravelTimes(cameras=cameras, least=least_times, most=most_times, frame_rate=frame_rate, starts=begun)


def _padded(travel: TravelTimes) -> TravelTimes:
    """Add a camera that nothing is known of, for those that the table does not name."""
    return TravelTimes(
        cameras=travel.cameras,
        least=np.pad(travel.least, (0, 1)),
        most=np.pad(travel.most, (0, 1), constant_values=np.inf),
        frame_rate=travel.frame_rate,
        starts=np.pad(travel.starts, (0, 1)),
    )


def _some(cameras: object) -> str:
    names = sorted(cameras)  # type: ignore[call-overload]
    return ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
