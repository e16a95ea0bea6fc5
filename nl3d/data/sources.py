"""Open what tracklets come from: a video with boxes, a folder, a table, or frames in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from nl3d.data.clips.processor import ChannelOrder
from nl3d.data.crops import Crops, to_tracklets
from nl3d.data.readers.boxes import BoxOptions, BoxSource
from nl3d.data.readers.columns import is_parquet, is_table
from nl3d.data.readers.manifest import read_manifest_tracklets
from nl3d.data.readers.tree import read_tracklet_folders
from nl3d.data.tracklet_source import TrackletSource
from nl3d.data.tracklets import Tracklet
from nl3d.data.video_source import VideoSource

Source: TypeAlias = "str | Path | Crops | VideoSource | TrackletSource | Any"
"""A path, a data frame with a column ``path``, frames in memory, or an open source."""


def open_source(
    source: Source,
    tracks: BoxSource | None = None,
    *,
    boxes: BoxOptions | None = None,
    order: ChannelOrder = "rgb",
    check_files: bool = True,
) -> VideoSource | TrackletSource:
    """Open a video with tracks, a folder of tracklet folders, a table, or tracklets in memory.

    Args:
        source: A video file, or a folder of a video's frames, with ``tracks``; or a folder of tracklet folders; or a
            table (``.csv``, ``.parquet``, data frame), see :func:`nl3d.data.read_manifest_tracklets`; or tracklets in
            memory, see :func:`nl3d.data.crops.to_tracklets`; or what this returned.
        tracks: File of boxes, or boxes in memory, see :func:`nl3d.data.read_boxes`.
        boxes: How to read the boxes.
        order: Order of the colours in arrays and tensors; files know their own.
        check_files: Whether each frame that a table names must exist.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        TypeError: If tracklets in memory hold something else than frames.
        ValueError: If a video comes without tracks, or anything else comes with them, or ``order`` does not fit.
    """
    in_memory = not isinstance(source, str | Path | VideoSource | TrackletSource) and not is_table(source)
    if order != "rgb" and not in_memory:
        raise ValueError(f"order must be 'rgb' for files, which know their own, got {order!r}")
    if isinstance(source, VideoSource | TrackletSource):
        return source
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and not path.exists():
        raise FileNotFoundError(f"source {str(path)!r} does not exist")
    listed = path is None or (path.is_file() and (path.suffix.lower() == ".csv" or is_parquet(path)))
    if listed and tracks is not None:
        what = "tracklets" if path is None else f"the table {str(path)!r}"
        raise ValueError(f"tracks must be left out for {what}, whose frames are cut out already")
    if in_memory:
        crops: Any = source
        ready = isinstance(crops, Sequence) and all(isinstance(tracklet, Tracklet) for tracklet in crops)
        return TrackletSource(crops if ready and order == "rgb" else list(to_tracklets(crops, order)))
    if path is None or listed:
        return TrackletSource(read_manifest_tracklets(source, check_files=check_files), path=path)
    if tracks is not None:
        return VideoSource(path, tracks, boxes)
    if path.is_dir():
        return TrackletSource(read_tracklet_folders(path), path=path)
    raise ValueError(
        f"tracks must be given for the video {str(path)!r}: a MOTChallenge text file, frame,id,left,top,width,height"
    )
