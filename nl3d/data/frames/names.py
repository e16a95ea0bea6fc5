"""Image files of a folder, listed and held by name; no file is opened before a frame is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""File names that count as frames; all others in a folder are ignored."""

_SAME_DIGITS = str.maketrans("123456789", "000000000")


class FrameNames(Sequence[Path]):
    """Image files of a folder as a sequence of paths, which are built on access.

    Names are stored in one byte array (about 20 bytes per frame instead of a few hundred for a path); slices are views.
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
    """Sort key under which ``frame2`` comes before ``frame10``, and ``frame.jpg`` before both."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a path each is slow
    parts = re.split(r"(\d+)", stem if suffix.lower() in IMAGE_SUFFIXES else name)
    # text is at even places and digits are at odd ones, so that any two keys compare
    return [_magnitude(part) if place % 2 else part for place, part in enumerate(parts)], name


def _magnitude(digits: str) -> tuple[int, str]:
    digits = digits.lstrip("0")
    return len(digits), digits


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort file names in natural order; fast if their numbers are padded, as in every published data set."""
    names = list(names)
    if len({name.translate(_SAME_DIGITS) for name in names}) <= 1:
        return sorted(names)  # names of one form are in the order of their characters
    return sorted(names, key=natural_key)


def is_image_name(name: str) -> bool:
    """Whether a file name counts as a frame; hidden ones do not."""
    return name[:1] != "." and name.lower().endswith(IMAGE_SUFFIXES)


def number_files(folder: str | Path, names: Sequence[str]) -> tuple[dict[int, str], bool]:
    """Find the frame numbers in the names of files, such as a video's images.

    All names must be alike but for one number, as ``000001.jpg`` and ``frame_000060.png`` are. Names without any digit
    count from 1 in order.

    Returns:
        Name by number, and whether the numbers are those in the names.

    Example:
        >>> number_files("video", ["f_60_0012.png", "f_60_0007.png"])
        ({7: 'f_60_0007.png', 12: 'f_60_0012.png'}, True)
    """
    names = sort_names(names)
    remedy = "keep one file per frame there, named by its number, such as 000001.jpg"
    pieces = [re.split(r"([0-9]+)", os.path.splitext(name)[0]) for name in names]  # noqa: PTH122
    if all(len(piece) == 1 for piece in pieces) and len({piece[0].lower() for piece in pieces}) == len(names):
        if names == sorted(names, key=str.lower):
            return dict(enumerate(names, 1)), False
        raise ValueError(
            f"folder {str(folder)!r} must have files in one order, got names in upper and lower case; {remedy}"
        )
    for name, piece in zip(names, pieces, strict=True):
        if piece[::2] != pieces[0][::2]:
            raise ValueError(
                f"folder {str(folder)!r} must have files with names that differ in their number alone, "
                f"got {names[0]!r} and {name!r}; {remedy}"
            )
    numbers = [tuple(map(int, piece[1::2])) for piece in pieces]
    varying = [place for place, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    if len(varying) > 1:
        raise ValueError(
            f"folder {str(folder)!r} must have files with names that differ in one number, "
            f"got {names[0]!r} and {names[-1]!r}; {remedy}"
        )
    place = varying[0] if varying else -1
    images: dict[int, str] = {}
    for name, number in zip(names, numbers, strict=True):
        other = images.setdefault(number[place] if number else 0, name)
        if other != name:
            raise ValueError(
                f"folder {str(folder)!r} must have one file per frame, got {other!r} and {name!r}; {remedy}"
            )
    return images, True


def list_frames(folder: str | Path) -> FrameNames:
    """List the images of a tracklet's folder in natural order, with one read of the folder."""
    try:
        found = os.listdir(folder)  # noqa: PTH208 - a path each is slow
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"tracklet folder {str(folder)!r} does not exist") from None
    names = sort_names(name for name in found if is_image_name(name))
    if not names:
        inner = [name for name in sort_names(found) if Path(folder, name).is_dir()]
        raise FileNotFoundError(
            f"tracklet folder {str(folder)!r} must hold images (.jpg, .png or .webp), got none"
            + (f" but folders such as {inner[0]!r}" if inner else "")
        )
    if len({len(name) for name in names}) > 1 or len({name[-4:] for name in names}) > 1:
        for one, other in pairwise(names):
            if natural_key(one)[0] == natural_key(other)[0]:
                raise ValueError(
                    f"tracklet folder {str(folder)!r} must hold each image once, got {one!r} and {other!r}; "
                    "remove one of them"
                )
    return FrameNames(folder, names)


def list_folders(folder: str | Path, *, layout: str, remedy: str = "") -> list[str]:
    """List the names of the folders in a folder in natural order, without hidden ones.

    Args:
        folder: The folder.
        layout: Layout of the data set, for errors, such as ``"pid/camid/tracklet/*.jpg"``.
        remedy: Another remedy for images outside a tracklet folder.
    """
    names = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name[0] == ".":
                continue
            if entry.is_dir():
                names.append(entry.name)
            elif is_image_name(entry.name):
                raise ValueError(
                    f"image {entry.path!r} must be in the folder of a tracklet, {layout}"
                    + (f"; {remedy}" if remedy else "")
                )
            elif entry.is_symlink() and not Path(entry.path).exists():
                raise ValueError(f"link {entry.path!r} must lead to a folder, but leads nowhere")
    for name in names:
        if not is_utf8(name):
            raise ValueError(f"folder {name!r} of {str(folder)!r} must have a name in UTF-8; rename it")
    return sort_names(names)


def is_utf8(text: str) -> bool:
    """Whether a name can be written into files; names on Linux can be any bytes."""
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def require_file(path: str | Path, *, what: str, remedy: str = "") -> Path:
    """Return the path of a file, or raise :class:`FileNotFoundError` that names it as ``what``."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {str(path)!r} does not exist" + (f"; {remedy}" if remedy else ""))
    return path


def require_folder(path: str | Path, *, what: str, remedy: str = "") -> Path:
    """Return the path of a folder, or raise :class:`FileNotFoundError` that names it as ``what``."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{what} {str(path)!r} does not exist" + (f"; {remedy}" if remedy else ""))
    return path


def require_frames(frames: Iterable[tuple[str | Path, Iterable[str]]], *, what: str) -> None:
    """Refuse the first image that is listed but missing, with one read of each folder instead of one of each file."""
    for folder, names in frames:
        require_folder(folder, what=f"{what}: folder")
        missing = set(names).difference(os.listdir(folder))  # noqa: PTH208 - a path each is slow
        if missing:
            first = Path(folder, sort_names(missing)[0])
            raise FileNotFoundError(
                f"{what}: image {str(first)!r} does not exist, nor do {len(missing) - 1} others of that folder; "
                "unpack the data set again"
            )
