"""A folder of tracklet folders of frames."""

from __future__ import annotations

from pathlib import Path

from nl3d.data.frames.images import list_images
from nl3d.data.frames.names import natural_key
from nl3d.data.tracklets import Tracklet


def read_tracklet_folders(path: str | Path) -> list[Tracklet]:
    """List the tracklets of ``path/<tracklet>/<frame>.jpg``, tracklets and frames in natural order of their names.

    Frames are JPEG, PNG or WebP files; other files and hidden folders are left alone.

    Args:
        path: The folder that holds one folder a tracklet.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no folders, or one of them holds no frames.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"folder {str(path)!r} does not exist")
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if not folders:
        hint = "put the frames of each tracklet into a folder of their own"
        if list_images(path):
            hint += ", or give tracks if these are the frames of a video"
        raise ValueError(f"folder {str(path)!r} must hold one folder for each tracklet, got none; {hint}")
    tracklets = []
    for folder in sorted(folders, key=lambda entry: natural_key(entry.name)):
        frames = list_images(folder)
        if not frames:
            raise ValueError(f"tracklet folder {str(folder)!r} must hold images (.jpg, .png or .webp), got none")
        tracklets.append(Tracklet(frames, name=folder.name))
    return tracklets
