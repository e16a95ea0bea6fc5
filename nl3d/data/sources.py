"""Open what tracklets come from: a video with boxes, a folder, a table, or tracklets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nl3d.data.readers.boxes import BoxOptions
from nl3d.data.readers.manifest import read_manifest_tracklets
from nl3d.data.readers.tree import read_tracklet_folders
from nl3d.data.tracklet_source import TrackletSource
from nl3d.data.tracklets import Tracklet
from nl3d.data.video_source import VideoSource


def open_source(
    source: str | Path | Sequence[Tracklet] | VideoSource | TrackletSource,
    tracks: str | Path | None = None,
    *,
    boxes: BoxOptions | None = None,
    check_files: bool = True,
) -> VideoSource | TrackletSource:
    """Open a video with tracks, a folder of tracklet folders, a table, or tracklets.

    Args:
        source: A video file, or a folder of a video's frames, with ``tracks``; or a folder of tracklet folders; or a
            table (``.csv``), see :func:`nl3d.data.read_manifest_tracklets`; or tracklets; or what this returned.
        tracks: File of boxes, see :func:`nl3d.data.read_boxes`.
        boxes: How to read the file of boxes.
        check_files: Whether each frame that a table names must exist.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If a video comes without tracks, or tracklets come with them.
    """
    if isinstance(source, VideoSource | TrackletSource):
        return source
    if not isinstance(source, str | Path):
        if tracks is not None:
            raise ValueError("tracks must be left out for tracklets, whose frames are cut out already")
        return TrackletSource(source)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"source {str(path)!r} does not exist")
    if path.suffix.lower() == ".csv" and path.is_file():
        if tracks is not None:
            raise ValueError(f"tracks must be left out for the table {str(path)!r}, whose frames are cut out already")
        return TrackletSource(read_manifest_tracklets(path, check_files=check_files), path=path)
    if tracks is not None:
        return VideoSource(path, tracks, boxes)
    if path.is_dir():
        return TrackletSource(read_tracklet_folders(path), path=path)
    raise ValueError(
        f"tracks must be given for the video {str(path)!r}: a MOTChallenge text file, frame,id,left,top,width,height"
    )
