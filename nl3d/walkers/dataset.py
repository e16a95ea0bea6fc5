"""The synthetic data set: walkers as a small MARS, rendered when a frame is asked for, or once and for all."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from nl3d.data.dataset import ReIDDataset
from nl3d.data.tracklets import Tracklet
from nl3d.files import replacing
from nl3d.walkers import WalkerTracklets, WalkerWorld


class _Frames(Sequence[Tensor]):
    """Frames of one tracklet, of which several cost less at once than one after the other."""

    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return self.read_all(range(*index.indices(self.length)))
        return self.read_all([index])[0]

    def read_all(self, indices: Sequence[int]) -> list[Tensor]:
        """Give some frames; negative indices count from the end, as in any sequence."""
        for index in indices:
            if not -self.length <= index < self.length:
                raise IndexError(f"index must be below {self.length}, got {index}")
        return list(self._read([index % self.length for index in indices])) if len(indices) else []

    def _read(self, places: list[int]) -> Tensor:
        """Frames ``(len(places), 3, H, W)``, uint8."""
        raise NotImplementedError


class WalkerFrames(_Frames):
    """Frames of one walker's tracklet, none of which exists before it is asked for.

    Args:
        world: Where the walker walks.
        key: Pid, camid and number of the tracklet.
        length: Number of frames.
    """

    def __init__(self, world: WalkerWorld, key: tuple[int, int, int], length: int) -> None:
        self.world, self.key, self.length = world, key, length

    def _read(self, places: list[int]) -> Tensor:
        return self.world.frames(*self.key, places)


class StoredFrames(_Frames):
    """Frames of one tracklet in a file that holds those of all, mapped into memory and shared between processes.

    Args:
        path: The file.
        row: Which tracklet.
        length: Number of frames.
    """

    def __init__(self, path: Path, row: int, length: int) -> None:
        self.path, self.row, self.length = path, row, length

    def _read(self, places: list[int]) -> Tensor:
        return torch.from_numpy(_mapped(self.path)[self.row, places])  # a copy, for a list of places makes one


@cache
def _mapped(path: Path) -> Any:
    return np.load(path, mmap_mode="r")


def read_walkers(
    root: str | Path | None = None,
    *,
    size: tuple[int, int],
    tracklets_per_camera: int = 2,
    num_frames: int = 128,
    num_test_frames: int = 64,
    **world: Any,
) -> ReIDDataset:
    """Walkers as a data set: training people, and others to test on.

    Every person has some tracklets under each camera that sees them. The protocol is that of MARS: one query for each
    test person and camera, and all test tracklets in the gallery, the queries too.

    Args:
        root: Folder to render all frames into, once: a run of many epochs then spends no time on it. With the defaults
            that is 1.4 GB at 64x32 pixels. Left out, each frame is rendered whenever it is asked for.
        size: Height and width of the frames, in pixels.
        tracklets_per_camera: Tracklets of each person under each of their cameras.
        num_frames: Frames of a training tracklet.
        num_test_frames: Frames of a test tracklet.
        world: Further arguments of :class:`~nl3d.walkers.WalkerWorld`.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument is unknown.

    Example:
        >>> dataset = read_walkers(size=(32, 16), num_identities=12, num_test=4)
        >>> dataset.counts()["train"]
        Counts(tracklets=48, pids=8, frames=6144)
    """
    for name, value in (("num_frames", num_frames), ("num_test_frames", num_test_frames)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    height, width = size
    walkers = WalkerWorld(size=(height, width), **world)

    def tracklets(split: Literal["train", "gallery"], length: int) -> list[Tracklet]:
        keys = WalkerTracklets(walkers, split, tracklets_per_camera=tracklets_per_camera).keys
        lazy = [WalkerFrames(walkers, key, length) for key in keys]
        path = _stored(Path(root), walkers, keys, length) if root and keys else None
        frames = [StoredFrames(path, row, length) for row in range(len(keys))] if path else lazy
        return [
            Tracklet(own, pid=pid, camid=camid, name=f"{pid}/{camid}/{number}")
            for own, (pid, camid, number) in zip(frames, keys, strict=True)
        ]

    gallery = tracklets("gallery", num_test_frames)
    return ReIDDataset(
        name="walkers",
        protocol=f"walkers, {_described(walkers)}",
        train=tracklets("train", num_frames),
        query=[tracklet for tracklet in gallery if tracklet.name.endswith("/0")],
        gallery=gallery,
        train_labels=list(walkers.train_pids),
    )


def _stored(root: Path, world: WalkerWorld, keys: Sequence[tuple[int, int, int]], length: int) -> Path:
    """File with all frames of some tracklets, rendered if it is not there; its name tells all that decides them."""
    digest = hashlib.sha256(f"{world} {keys} {length}".encode())
    for key in (keys[0], keys[len(keys) // 2], keys[-1]):  # a generator that draws otherwise has another name, too
        digest.update(world.tracklet(*key, num_frames=2, start=1, step=length).numpy().tobytes())
    path = root / f"walkers-{digest.hexdigest()[:16]}.npy"
    if not path.is_file():
        root.mkdir(parents=True, exist_ok=True)
        shape = (len(keys), length, 3, *world.size)
        with replacing(path) as unfinished:
            rendered = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
            for row, key in enumerate(keys):
                rendered[row] = world.tracklet(*key, num_frames=length).numpy()
            rendered.flush()
    return path


def _described(world: WalkerWorld) -> str:
    """What differs from the world's defaults."""
    values = ((item.name, getattr(world, item.name), item.default) for item in dataclasses.fields(world))
    return ", ".join(f"{name}={value}" for name, value, default in values if value != default) or "defaults"
