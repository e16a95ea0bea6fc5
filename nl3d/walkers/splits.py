"""Which tracklets there are: a small MARS in three lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nl3d.walkers.world import NOMINAL_FRAMES, WalkerWorld

Split = Literal["train", "query", "gallery"]
SPLITS: tuple[Split, ...] = ("train", "query", "gallery")


class WalkerKey(NamedTuple):
    """The numbers of one tracklet, in the order :meth:`WalkerWorld.tracklet` takes them."""

    pid: int
    camid: int
    tracklet: int


class WalkerTracklets(Sequence[tuple[Tensor, int, int]]):
    """The tracklets of one split, each rendered when it is asked for; what a torch DataLoader takes as a data set.

    As in MARS, there is one query for each person and camera, and the gallery holds all test tracklets, the queries
    too: :func:`nl3d.metrics.evaluate` leaves out those of the query's own camera.

    Args:
        world: Where they walk.
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
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
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
