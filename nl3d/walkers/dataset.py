"""Walkers as a data set like MARS, rendered on access or once into a file."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from nl3d.data.dataset import PARTS, ReIDDataset
from nl3d.data.tracklets import Tracklet
from nl3d.files import replacing
from nl3d.walkers.world import NOMINAL_FRAMES, WalkerWorld

Split = Literal["train", "query", "gallery"]


class WalkerKey(NamedTuple):
    """Numbers of one tracklet, in the order of the arguments of :meth:`WalkerWorld.tracklet`."""

    pid: int
    camid: int
    tracklet: int


class WalkerTracklets(Sequence[tuple[Tensor, int, int]]):
    """Tracklets of one split as a torch data set; each is rendered on access.

    As in MARS, there is one query per person and camera, and the gallery holds all test tracklets, queries included:
    :func:`nl3d.metrics.evaluate` leaves out those of the query's own camera.

    Args:
        world: The world to film.
        split: ``"train"``, ``"query"`` or ``"gallery"``.
        tracklets_per_camera: Tracklets of each person under each of their cameras.
        num_frames: Frames of a tracklet.
        step: Frames from one to the next.

    Shape:
        - Item: frames ``(num_frames, 3, H, W)`` uint8, pid, camid

    Raises:
        ValueError: If ``split`` is unknown or a number is below 1.

    Example:
        >>> from nl3d.walkers import WalkerTracklets, WalkerWorld
        >>> query = WalkerTracklets(WalkerWorld(num_identities=8, num_test=4, size=(32, 16)), "query", num_frames=2)
        >>> frames, pid, camid = query[0]
        >>> len(query), frames.shape, pid
        (12, torch.Size([2, 3, 32, 16]), 4)
    """

    def __init__(
        self,
        world: WalkerWorld,
        split: Split,
        *,
        tracklets_per_camera: int = 2,
        num_frames: int = NOMINAL_FRAMES,
        step: int = 1,
    ) -> None:
        if split not in PARTS:
            raise ValueError(f"split must be one of {', '.join(map(repr, PARTS))}, got {split!r}")
        for name, value in (("tracklets_per_camera", tracklets_per_camera), ("num_frames", num_frames)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.world, self.split, self.num_frames, self.step = world, split, num_frames, step
        pids = world.train_pids if split == "train" else world.test_pids
        numbers = range(1 if split == "query" else tracklets_per_camera)
        self.keys = [
            WalkerKey(pid, camid, number) for pid in pids for camid in world.cameras_of(pid) for number in numbers
        ]

    @property
    def pids(self) -> Tensor:
        """Identity of each tracklet, int64 ``(len(self),)``."""
        return torch.tensor([key.pid for key in self.keys], dtype=torch.int64)

    @property
    def camids(self) -> Tensor:
        """Camera of each tracklet, int64 ``(len(self),)``."""
        return torch.tensor([key.camid for key in self.keys], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:  # type: ignore[override]
        key = self.keys[index]
        return self.world.tracklet(*key, num_frames=self.num_frames, step=self.step), key.pid, key.camid


class _Frames(Sequence[Tensor]):
    """Frames of one tracklet, read by a function of their indices, which is faster for several at once."""

    def __init__(self, length: int, read: Callable[[list[int]], Tensor]) -> None:
        self.length, self._read = length, read

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
        """Return some frames; negative indices count from the end."""
        for index in indices:
            if not -self.length <= index < self.length:
                raise IndexError(f"index must be below {self.length}, got {index}")
        return list(self._read([index % self.length for index in indices])) if len(indices) else []


def _read_stored(path: Path, row: int, indices: list[int]) -> Tensor:
    return torch.from_numpy(_mapped(path)[row, indices])  # indexing by a list copies


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
    """Make a data set of walkers, with separate people for training and testing.

    The protocol is that of MARS: one query per test person and camera, and all test tracklets in the gallery, queries
    included.

    Args:
        root: Folder to render all frames into once, which saves time over many epochs. With the defaults the files
            take 1.4 GB at 64x32 pixels. If left out, frames are rendered on access.
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
        path = _stored(Path(root), walkers, keys, length) if root and keys else None
        return [
            Tracklet(
                _Frames(length, partial(_read_stored, path, row) if path else partial(walkers.frames, *key)),
                pid=key.pid,
                camid=key.camid,
                name="/".join(map(str, key)),
            )
            for row, key in enumerate(keys)
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
    """Render all frames of some tracklets into a file named by a hash of all they depend on, unless it exists."""
    digest = hashlib.sha256(f"{world} {keys} {length}".encode())
    for key in (keys[0], keys[len(keys) // 2], keys[-1]):  # so that another generator gives another name
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
    """Describe how a world differs from the defaults."""
    values = ((item.name, getattr(world, item.name), item.default) for item in dataclasses.fields(world))
    return ", ".join(f"{name}={value}" for name, value, default in values if value != default) or "defaults"
