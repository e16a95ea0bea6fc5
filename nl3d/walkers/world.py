"""The generator: one world of people and cameras, and the tracklets filmed in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nl3d.walkers.camera import Camera, draw_camera
from nl3d.walkers.draws import Draws
from nl3d.walkers.identity import Identity, draw_identity
from nl3d.walkers.scene import Obstacle, draw_obstacles
from nl3d.walkers.shot import film

NOMINAL_FRAMES = 64  # what the paper samples from; obstacles pass within them


@dataclass(frozen=True, kw_only=True)
class WalkerWorld:
    """Synthetic people, filmed by cameras that differ: ``(seed, pid, camid, tracklet) -> frames``.

    Stands in for a video re-identification data set where there is none. Every frame is a function of its numbers
    alone: no file, no global random state, no order of calls, so that any frame of any tracklet can be had at any time.
    Walkers differ in clothes, build and gait. Some groups of ``group_size`` successive pids are dressed alike: only
    motion tells their members apart (and build, unless ``same_build``). Test identities follow the training ones.

    Args:
        seed: Another seed is another world.
        num_identities: Pids go from 0 to this.
        num_test: How many of them, the last ones, are for testing.
        num_cameras: Camids go from 0 to this.
        num_held_out_cameras: How many of them, the last ones, are for testing only; testing then uses no others. With 0
            training and testing share all cameras.
        cameras_per_identity: How many of the cameras see each person.
        size: Height and width of the frames, pixels.
        frame_rate: Frames per second.
        group_size: Pids per group.
        alike: Share of the groups that are dressed alike.
        same_build: Whether people dressed alike have one build too, so that only motion is left.
        difficulty: Factor on the next five: 0 is clean, 1 the default, 2 heavy.
        camera_style: Strength of colour casts, contrast and light.
        clutter: Contrast of the background, full from 2 on; at 0 it is grey.
        degradation: Strength of low resolution, blur, noise and compression.
        misalignment: How far boxes miss, drift and jitter.
        occlusion: How often something passes in front of a walker.
        looseness: By how much boxes may be larger than the walker, as a share of its height, drawn per tracklet: some
            detectors leave a wide margin. No part of ``difficulty``.

    Raises:
        ValueError: If a number is out of range, or if test identities would start inside a group.

    Example:
        >>> world = WalkerWorld(seed=0, size=(32, 16))
        >>> world.tracklet(pid=3, camid=1, tracklet=0, num_frames=4).shape
        torch.Size([4, 3, 32, 16])
    """

    seed: int = 0
    num_identities: int = 400
    num_test: int = 200
    num_cameras: int = 6
    num_held_out_cameras: int = 0
    cameras_per_identity: int = 3
    size: tuple[int, int] = (128, 64)
    frame_rate: float = 25.0
    group_size: int = 4
    alike: float = 0.5
    same_build: bool = True
    difficulty: float = 1.0
    camera_style: float = 1.0
    clutter: float = 1.0
    degradation: float = 1.0
    misalignment: float = 1.0
    occlusion: float = 1.0
    looseness: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_identities", "num_cameras", "cameras_per_identity", "group_size"):
            _check_count(getattr(self, name), name=name, low=1)
        _check_count(self.num_test, name="num_test", low=0, high=self.num_identities)
        _check_count(self.num_held_out_cameras, name="num_held_out_cameras", low=0, high=self.num_cameras)
        if len(self.size) != 2 or min(self.size) < 8:
            raise ValueError(f"size must be (height, width) of at least 8 pixels each, got {self.size}")
        if self.frame_rate <= 0:
            raise ValueError(f"frame_rate must be positive, got {self.frame_rate}")
        if not 0 <= self.alike <= 1:
            raise ValueError(f"alike must be a share from 0 to 1, got {self.alike}")
        for name in ("difficulty", "camera_style", "clutter", "degradation", "misalignment", "occlusion", "looseness"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if (self.num_identities - self.num_test) % self.group_size:
            raise ValueError(
                f"num_identities - num_test must be a multiple of group_size={self.group_size}, got "
                f"{self.num_identities - self.num_test}; else one group would be trained on and tested"
            )

    def tracklet(
        self, pid: int, camid: int, tracklet: int, *, num_frames: int = NOMINAL_FRAMES, start: int = 0, step: int = 1
    ) -> Tensor:
        """Film a tracklet, or some frames of it.

        Args:
            pid: Who walks.
            camid: Which camera films.
            tracklet: Number of the tracklet; any from 0. Each is another walk past the camera.
            num_frames: Frames to return.
            start: First frame; a tracklet has no end.
            step: Frames from one to the next; 0 repeats the first, as a still.

        Returns:
            uint8 frames ``(num_frames, 3, H, W)``, RGB.

        Raises:
            ValueError: If a number is out of range.
        """
        _check_count(num_frames, name="num_frames", low=1)
        _check_count(start, name="start", low=0)
        _check_count(step, name="step", low=0)
        return self.frames(pid, camid, tracklet, [start + step * index for index in range(num_frames)])

    def frames(self, pid: int, camid: int, tracklet: int, indices: Sequence[int]) -> Tensor:
        """Film chosen frames of a tracklet, in any order; one call for all of them is several times faster than many.

        Args:
            pid: Who walks.
            camid: Which camera films.
            tracklet: Number of the tracklet.
            indices: Which frames, from 0.

        Returns:
            uint8 frames ``(len(indices), 3, H, W)``, RGB.

        Raises:
            ValueError: If a number is out of range or there are no indices.
        """
        _check_count(tracklet, name="tracklet", low=0)
        if not len(indices):
            raise ValueError("indices must name at least one frame, got none")
        for index in indices:
            _check_count(index, name="indices", low=0)
        return film(self, pid, camid, tracklet, np.asarray(indices, dtype=np.int64))

    def identity(self, pid: int) -> Identity:
        """The person behind a pid: clothes, build and gait, as ground truth."""
        _check_count(pid, name="pid", low=0, high=self.num_identities - 1)
        first = pid - pid % self.group_size
        alike = Draws(self.seed, "alike", first, self.group_size).uniform() < self.alike
        return draw_identity(
            self.seed,
            pid,
            group=first,
            place=pid - first,
            group_size=self.group_size,
            alike=alike,
            same_build=self.same_build,
        )

    def camera(self, camid: int) -> Camera:
        """The style of a camera."""
        _check_count(camid, name="camid", low=0, high=self.num_cameras - 1)
        return draw_camera(
            self.seed,
            camid,
            style=self.difficulty * self.camera_style,
            degradation=self.difficulty * self.degradation,
        )

    def group_of(self, pid: int) -> int:
        """The lowest pid dressed like this one: its own if nobody before it is."""
        return self.identity(pid).group

    def obstacles(self, pid: int, camid: int, tracklet: int) -> tuple[Obstacle, ...]:
        """What passes between camera and walker in the first 64 frames, or walks behind."""
        draws = Draws(self.seed, "obstacles", pid, camid, tracklet)
        amount = self.difficulty * self.occlusion
        return draw_obstacles(draws, amount=amount, duration=NOMINAL_FRAMES / self.frame_rate)

    @property
    def train_pids(self) -> range:
        """Identities to train on, from 0."""
        return range(self.num_identities - self.num_test)

    @property
    def test_pids(self) -> range:
        """Identities to test on."""
        return range(self.num_identities - self.num_test, self.num_identities)

    def cameras_of(self, pid: int) -> tuple[int, ...]:
        """The cameras that see a person, sorted."""
        _check_count(pid, name="pid", low=0, high=self.num_identities - 1)
        shared = self.num_cameras - self.num_held_out_cameras
        testing = self.num_held_out_cameras and pid in self.test_pids
        low, high = (shared, self.num_cameras) if testing else (0, shared)
        order = low + Draws(self.seed, "cameras", pid).permutation(high - low)
        return tuple(sorted(int(camid) for camid in order[: self.cameras_per_identity]))


def _check_count(value: int, *, name: str, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < low or (high is not None and value > high):
        rule = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {rule}, got {value}")
