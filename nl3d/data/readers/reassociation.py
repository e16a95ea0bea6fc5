"""Tracks in a video as a test: is a person found again, some frames later or when they come back?"""

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
from nl3d.data.frames.names import FrameNames, is_image_name, require_file
from nl3d.data.labels import number_labels, parse_label
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
    """Make a test of re-identification out of a video with tracks.

    With ``later``, a query is the first ``num_frames`` frames of a track, and its match in the gallery is a stretch of
    the same track that begins ``later`` frames after the query's last. Tracks too short for that are in the gallery
    only, as wrong answers. Queries are camera 1, the gallery is camera 2.

    With ``people``, a file that maps tracks to people, every track is a tracklet of its first ``num_frames`` boxes. All
    are the gallery, and those of people who come more than once are the queries. A person's visits count as cameras,
    from 1 in order of time, so that a ranking leaves out the query itself and nothing else.

    Boxes are cut out of the video once and kept as JPEG files of quality 95, since going back and forth in a video is
    slow. Boxes that lie outside the frame are left out. Of ground truth only pedestrians that count are taken, unless
    ``boxes`` chooses other classes.

    Args:
        source: A video file, a folder of its frames, or a MOTChallenge sequence with ``img1`` and ``gt/gt.txt``.
        tracks: Boxes in MOTChallenge text; may be left out for a MOTChallenge sequence.
        crops: Folder to keep what is cut out; made if need be, and used again if it is there.
        later: Frames from a query's last to its match's first.
        people: Text file with a track id and a person's name a line, separated by a comma or space.
        num_frames: Longest stretch of frames of a tracklet.
        boxes: How to read the boxes; those of a MOTChallenge sequence are ground truth unless told otherwise.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If not one of ``later`` and ``people`` is given, nobody can be found again, the people file does
            not name each track once, or ``crops`` holds what was cut out of something else.
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
    box_tracks = read.tracks
    if later is not None:
        stretches = _later(box_tracks, later, num_frames)
        protocol = f"found again {later} frames later"
    else:
        stretches = _visits(box_tracks, _read_people(Path(people or ""), box_tracks), num_frames)
        protocol = "found again on re-entry"
    folder = Path(crops)
    outside = _cut(source, read, folder, stretches)
    found: dict[str, list[Tracklet]] = {"query": [], "gallery": []}
    for stretch in stretches:
        names = [_crop_name(stretch.track, n) for n in stretch.frames if (stretch.track, n) not in outside]
        if names:
            title = f"{stretch.track}@{stretch.frames[0]}"
            tracklet = Tracklet(
                FrameNames(folder, names), pid=stretch.pid, camid=stretch.camid, name=title, person=stretch.person
            )
            for part in stretch.parts:
                found[part].append(tracklet)
    if not found["query"]:
        remedy = "take a smaller later" if later is not None else "check the people file"
        raise ValueError(f"{str(tracks)!r} must have a track that can be found again, got none; {remedy}")
    return ReIDDataset(name=name, protocol=protocol, query=found["query"], gallery=found["gallery"])


@dataclass(frozen=True)
class _Stretch:
    """Some frames of a track, and what they are for."""

    track: int
    pid: int
    person: str
    camid: int
    parts: tuple[str, ...]
    frames: list[int]
    boxes: NDArray[np.float64]


def _stretch(
    track: BoxTrack, chosen: NDArray[np.bool_], *, pid: int, camid: int, parts: Sequence[str], person: str = ""
) -> _Stretch:
    frames, boxes = track.frames[chosen].tolist(), track.boxes[chosen]
    return _Stretch(track.track_id, pid, person or str(pid), camid, tuple(parts), frames, boxes)


def _later(tracks: Sequence[BoxTrack], later: int, num_frames: int) -> list[_Stretch]:
    stretches = []
    pids = number_labels(str(track.track_id) for track in tracks)
    for track in tracks:
        first = track.frames < track.frames[0] + num_frames
        beyond = track.frames >= track.frames[first][-1] + later
        if beyond.any():
            stretches.append(
                _stretch(
                    track, first, pid=pids[str(track.track_id)], person=str(track.track_id), camid=1, parts=["query"]
                )
            )
            start = track.frames[beyond][0]
            first = beyond & (track.frames < start + num_frames)
        stretches.append(
            _stretch(
                track, first, pid=pids[str(track.track_id)], person=str(track.track_id), camid=2, parts=["gallery"]
            )
        )
    return stretches


def _visits(tracks: Sequence[BoxTrack], names: dict[int, str], num_frames: int) -> list[_Stretch]:
    pids = number_labels(names.values())
    visits: dict[str, list[BoxTrack]] = defaultdict(list)
    for track in sorted(tracks, key=lambda track: (int(track.frames[0]), track.track_id)):
        visits[names[track.track_id]].append(track)
    stretches = []
    for name in sorted(visits, key=pids.__getitem__):
        parts = ["query", "gallery"] if len(visits[name]) > 1 else ["gallery"]
        for camid, track in enumerate(visits[name], 1):
            chosen = np.arange(len(track.frames)) < num_frames
            stretches.append(_stretch(track, chosen, pid=pids[name], camid=camid, parts=parts, person=name))
    return stretches


def _read_people(path: Path, tracks: Sequence[BoxTrack]) -> dict[int, str]:
    require_file(path, what="people file")
    names: dict[int, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.replace(",", " ").split(maxsplit=1)
        if not words or words[0].startswith("#") or (number == 1 and not words[0].isdecimal()):
            continue  # empty, a remark, or the names of the columns
        if len(words) < 2 or not words[0].isdecimal():
            raise ValueError(f"{path}, line {number}: a line must be a track id and a name, got {line[:80]!r}")
        if int(words[0]) in names:
            raise ValueError(f"{path}, line {number}: a track must have one line, but track {words[0]} has another")
        try:
            names[int(words[0])] = parse_label(words[1])
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    missing = [track.track_id for track in tracks if track.track_id not in names]
    if missing:
        raise ValueError(
            f"people file {str(path)!r} must name every track, but {len(missing)} lack, such as {missing[0]}"
        )
    return {track.track_id: names[track.track_id] for track in tracks}


def _crop_name(track: int, frame: int) -> str:
    return f"{track:06d}/{frame:08d}.jpg"


def _cut(source: Path, boxes: Boxes, folder: Path, stretches: Iterable[_Stretch]) -> set[tuple[int, int]]:
    """Cut out the boxes that are not there yet; gives those that lie outside the frame."""
    stamp = folder / "source.json"
    digest = hashlib.sha256()
    for read in boxes.tracks:
        digest.update(str(read.track_id).encode() + read.frames.tobytes() + read.boxes.tobytes())
    origin = {"source": source.name, "tracks": digest.hexdigest()}
    outside: set[tuple[int, int]] = set()
    if stamp.is_file():
        before = json.loads(stamp.read_text(encoding="utf-8"))
        if any(before.get(key) != value for key, value in origin.items()):
            raise ValueError(
                f"crops {str(folder)!r} must be of {source.name!r} and these tracks; choose another folder"
            )
        outside = {(track, frame) for track, frame in before["outside"]}
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
