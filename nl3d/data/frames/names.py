"""Many image files of one folder, held as names alone: no file is looked at until a frame is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""File names that count as frames; all others in a folder are ignored."""

_SAME_DIGITS = str.maketrans("123456789", "000000000")


class FrameNames(Sequence[Path]):
    """Image files of a folder, as a sequence of paths that are put together when asked for.

    A data set has a million frames and more. Their names lie in one block of bytes here, of which slices are views:
    some twenty bytes a frame instead of a few hundred for a path, and nothing that worker processes would copy one by
    one.

    Args:
        folder: The folder.
        names: File names in it, or paths below it, in the order of the frames.

    Example:
        >>> frames = FrameNames("people", ["0001.jpg", "0002.jpg", "0003.jpg"])
        >>> len(frames), frames[-1].as_posix(), [path.name for path in frames[::2]]
        (3, 'people/0003.jpg', ['0001.jpg', '0003.jpg'])
    """

    __slots__ = ("folder", "names")

    def __init__(self, folder: str | Path, names: Sequence[str] | NDArray[np.bytes_]) -> None:
        self.folder = str(folder)
        self.names = names if isinstance(names, np.ndarray) else np.array([os.fsencode(name) for name in names], "S")

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> FrameNames: ...

    def __getitem__(self, index: int | slice) -> Path | FrameNames:
        if isinstance(index, slice):
            return FrameNames(self.folder, self.names[index])
        return Path(self.folder, os.fsdecode(bytes(self.names[index])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905

    def __hash__(self) -> int:
        return hash((self.folder, self.names.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameNames, (self.folder, self.names)

    def __repr__(self) -> str:
        return f"FrameNames({self.folder!r}, {len(self)} frames)"


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key under which ``frame2`` comes before ``frame10``, and ``frame.jpg`` before both.

    Example:
        >>> sorted(["frame10.jpg", "frame2.jpg", "frame.jpg"], key=natural_key)
        ['frame.jpg', 'frame2.jpg', 'frame10.jpg']
    """
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a path each is slow
    parts = re.split(r"(\d+)", stem if suffix.lower() in IMAGE_SUFFIXES else name)
    # text is at even places and digits are at odd ones, so that any two keys compare
    return [_magnitude(part) if place % 2 else part for place, part in enumerate(parts)], name


def _magnitude(digits: str) -> tuple[int, str]:
    digits = digits.lstrip("0")
    return len(digits), digits


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort file names in natural order; fast where their numbers are padded, as in every published data set.

    Example:
        >>> sort_names(["f10.jpg", "f9.jpg"]), sort_names(["f10.jpg", "f09.jpg"])
        (['f9.jpg', 'f10.jpg'], ['f09.jpg', 'f10.jpg'])
    """
    names = list(names)
    if len({name.translate(_SAME_DIGITS) for name in names}) <= 1:
        return sorted(names)  # digits stand below digits, so the order of characters is that of numbers
    return sorted(names, key=natural_key)


def is_image_name(name: str) -> bool:
    """Whether a file name counts as a frame; hidden ones do not."""
    return name[:1] != "." and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a path each is slow


def list_frames(folder: str | Path) -> FrameNames:
    """List the images of a tracklet's folder in natural order, from one look at the folder.

    Raises:
        FileNotFoundError: If there is no such folder, or no image in it.
    """
    try:
        names = [name for name in os.listdir(folder) if is_image_name(name)]  # noqa: PTH208 - a path each is slow
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"tracklet folder {str(folder)!r} does not exist") from None
    if not names:
        raise FileNotFoundError(f"tracklet folder {str(folder)!r} must hold images (.jpg, .png or .webp), got none")
    return FrameNames(folder, sort_names(names))


def list_folders(folder: str | Path) -> list[str]:
    """Names of the folders in a folder, hidden ones left out, in natural order."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0] != "." and entry.is_dir()]
    return sort_names(names)


def require_file(path: str | Path, *, what: str, remedy: str = "") -> Path:
    """Refuse a missing file of a data set, and say what it would have been."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {str(path)!r} does not exist" + (f"; {remedy}" if remedy else ""))
    return path


def require_folder(path: str | Path, *, what: str, remedy: str = "") -> Path:
    """Refuse a missing folder of a data set, and say what it would have been."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{what} {str(path)!r} does not exist" + (f"; {remedy}" if remedy else ""))
    return path


def require_frames(frames: Iterable[tuple[str | Path, Iterable[str]]], *, what: str) -> None:
    """Refuse the first image that is listed but not there, with one look at each folder instead of one at each file.

    Args:
        frames: Folders, each with the names that should lie in it.
        what: Who lists them.

    Raises:
        FileNotFoundError: If a folder or a file is missing.
    """
    for folder, names in frames:
        require_folder(folder, what=f"{what}: folder")
        missing = set(names).difference(os.listdir(folder))  # noqa: PTH208 - a path each is slow
        if missing:
            first = Path(folder, sort_names(missing)[0])
            raise FileNotFoundError(
                f"{what}: image {str(first)!r} does not exist, nor do {len(missing) - 1} others of that folder; "
                "unpack the data set again"
            )
