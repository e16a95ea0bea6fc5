"""A test of re-identification from a video with tracks."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nl3d.data.dataset import ReIDDataset
from nl3d.data.frames.images import encode_jpeg
from nl3d.data.frames.names import FrameNames, is_image_name, require_file, sort_names
from nl3d.data.labels import number_labels, parse_label
from nl3d.data.readers.box_rows import read_lines
from nl3d.data.readers.boxes import Boxes, BoxOptions, BoxTrack, read_boxes
from nl3d.data.tracklets import Tracklet
from nl3d.files import replacing


def read_reassociation(
    source: str | Path,
    tracks: str | Path | None = None,
    *,
    crops: str | Path,
    later: int | None = None,
    people: str | Path | None = None,
    num_frames: int = 64,
    boxes: BoxOptions | None = None,
) -> ReIDDataset:
    """Make a test of re-identification from a video with tracks.

    With ``later``, a query is the first ``num_frames`` frames of a track. Its match in the gallery is a stretch of the
    same track that begins ``later`` frames after the query's last. Tracks too short for that are in the gallery only,
    as wrong answers. Queries are camera 1, the gallery is camera 2.

    With ``people``, a file that maps tracks to people, every track is a tracklet of its first ``num_frames`` boxes. All
    are in the gallery. Those of people who come more than once are also queries. A person's visits count as cameras,
    from 1 in order of time, so that a ranking leaves out the query itself and nothing else.

    Boxes are cut out of the video once and kept as JPEG files of quality 95. Boxes that lie outside the frame are left
    out.

    Args:
        source: A video file, a folder of its images, or a MOTChallenge sequence with ``img1`` and ``gt/gt.txt``.
        tracks: File of boxes, see :func:`nl3d.data.read_boxes`; not needed for a MOTChallenge sequence.
        crops: Folder for the boxes that are cut out; those that are there already are used again.
        later: Frames from a query's last to its match's first.
        people: Text file with a track id and a person's name per line, separated by a comma or white space.
        num_frames: Longest stretch of frames of a tracklet.
        boxes: How to read the boxes; by default those of a MOTChallenge sequence are its ground truth.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If not exactly one of ``later`` and ``people`` is given, no one can be found again, the people file
            does not name each track once, or ``crops`` holds boxes of other tracks.
    """
    if (later is None) == (people is None):
        raise ValueError("one of later and people must be given, got " + ("neither" if later is None else "both"))
    if num_frames < 1 or (later is not None and later < 1):
        raise ValueError(f"num_frames and later must be at least 1, got {num_frames} and {later}")
    source = Path(source)
    name = source.stem
    if tracks is None:
        source, tracks = source / "img1", source / "gt" / "gt.txt"
        boxes = boxes or BoxOptions(format="mot-gt")
    read = read_boxes(tracks, boxes)
    if later is not None:
        stretches = _later(read.tracks, later, num_frames)
        protocol = f"found again {later} frames later"
    else:
        stretches = _visits(read.tracks, _read_people(Path(people or ""), read.tracks), num_frames)
        protocol = "found again on re-entry"
    folder = Path(crops)
    outside = _cut(source, read, folder, stretches)
    pids = number_labels(stretch.person for stretch in stretches)
    found: dict[str, list[Tracklet]] = {"query": [], "gallery": []}
    for stretch in stretches:
        names = [_crop_name(stretch.track, n) for n in stretch.frames if (stretch.track, n) not in outside]
        if names:
            tracklet = Tracklet(
                FrameNames(folder, names),
                pid=pids[stretch.person],
                camid=stretch.camid,
                name=f"{stretch.track}@{stretch.frames[0]}",
                person=stretch.person,
            )
            for part in stretch.parts:
                found[part].append(tracklet)
    if not found["query"]:
        remedy = "take a smaller later" if later is not None else "check the people file"
        raise ValueError(f"{str(tracks)!r} must have a track that can be found again, got none; {remedy}")
    return ReIDDataset(name=name, protocol=protocol, query=found["query"], gallery=found["gallery"])


@dataclass(frozen=True)
class _Stretch:
    """Some frames of a track, and their parts in the test: query, gallery, or both."""

    track: int
    person: str
    camid: int
    parts: tuple[str, ...]
    frames: list[int]
    boxes: NDArray[np.float64]


def _stretch(track: BoxTrack, chosen: NDArray[np.bool_], person: str, camid: int, *parts: str) -> _Stretch:
    return _Stretch(track.track_id, person, camid, parts, track.frames[chosen].tolist(), track.boxes[chosen])


def _later(tracks: Sequence[BoxTrack], later: int, num_frames: int) -> list[_Stretch]:
    stretches = []
    for track in tracks:
        person = str(track.track_id)
        chosen = track.frames < track.frames[0] + num_frames
        beyond = track.frames >= track.frames[chosen][-1] + later
        if beyond.any():
            stretches.append(_stretch(track, chosen, person, 1, "query"))
            chosen = beyond & (track.frames < track.frames[beyond][0] + num_frames)
        stretches.append(_stretch(track, chosen, person, 2, "gallery"))
    return stretches


def _visits(tracks: Sequence[BoxTrack], names: dict[int, str], num_frames: int) -> list[_Stretch]:
    visits: dict[str, list[BoxTrack]] = defaultdict(list)
    for track in sorted(tracks, key=lambda track: (int(track.frames[0]), track.track_id)):
        visits[names[track.track_id]].append(track)
    stretches = []
    for name in sort_names(visits):
        parts = ["query", "gallery"] if len(visits[name]) > 1 else ["gallery"]
        for camid, track in enumerate(visits[name], 1):
            stretches.append(_stretch(track, np.arange(len(track.frames)) < num_frames, name, camid, *parts))
    return stretches


def _read_people(path: Path, tracks: Sequence[BoxTrack]) -> dict[int, str]:
    """Read ``{track: person}``; a first line that does not begin with a number is taken for a header."""
    names: dict[str, str] = {}
    for place, (number, line) in enumerate(read_lines(require_file(path, what="people file"))):
        columns = line.split(",", 1) if "," in line else line.split(maxsplit=1)
        try:
            track, person = parse_label(columns[0]), parse_label(columns[1])
        except (IndexError, ValueError):
            track, person = "", ""
        if not track.isdecimal() and place == 0:
            continue
        if not track.isdecimal():
            raise ValueError(f"{path}, line {number}: a line must be a track id and a name, got {line[:80]!r}")
        if track in names:
            raise ValueError(f"{path}, line {number}: a track must have one line, but track {track} has another")
        names[track] = person
    missing = [track.track_id for track in tracks if str(track.track_id) not in names]
    if missing:
        raise ValueError(
            f"people file {str(path)!r} must name every track, but {len(missing)} lack, such as {missing[0]}"
        )
    return {track.track_id: names[str(track.track_id)] for track in tracks}


def _crop_name(track: int, frame: int) -> str:
    return f"{track:06d}/{frame:08d}.jpg"


def _cut(source: Path, boxes: Boxes, folder: Path, stretches: Iterable[_Stretch]) -> set[tuple[int, int]]:
    """Cut out the boxes that are not there yet, and return those that lie outside the frame."""
    stamp = folder / "source.json"
    digest = hashlib.sha256()
    for read in boxes.tracks:
        digest.update(str(read.track_id).encode() + read.frames.tobytes() + read.boxes.tobytes())
    origin = {"source": source.name, "tracks": digest.hexdigest()}
    outside: set[tuple[int, int]] = set()
    if stamp.is_file():
        try:
            before = json.loads(stamp.read_text(encoding="utf-8"))
            outside = {(int(track), int(frame)) for track, frame in before["outside"]}
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"file {str(stamp)!r} must be one that nl3d wrote; remove the folder to cut again"
            ) from None
        if any(before.get(key) != value for key, value in origin.items()):
            raise ValueError(
                f"crops {str(folder)!r} must be of {source.name!r} and these tracks; choose another folder"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"crops {str(folder)!r} must be an empty folder or one of crops, got other things in it")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write(stamp, json.dumps({**origin, "outside": []}).encode())
    wanted: dict[int, dict[int, NDArray[np.float64]]] = defaultdict(dict)
    for stretch in stretches:
        own = folder / f"{stretch.track:06d}"
        own.mkdir(exist_ok=True)
        there = {int(name[:-4]) for name in os.listdir(own) if is_image_name(name)}  # noqa: PTH208
        for frame, box in zip(stretch.frames, stretch.boxes, strict=True):
            if frame not in there and (stretch.track, frame) not in outside:
                wanted[frame][stretch.track] = box
    if not wanted:
        return outside
    for frame, image in boxes.open_video(source).read(wanted):
        assert isinstance(image, Tensor)  # errors are raised
        for track, box in wanted[frame].items():
            if (cut := boxes.cut(image, box)) is None:
                outside.add((track, frame))
            else:
                _write(folder / _crop_name(track, frame), encode_jpeg(cut[0]))
    _write(stamp, json.dumps({**origin, "outside": sorted(outside)}).encode())
    return outside


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(data)
