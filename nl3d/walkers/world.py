"""Worlds of synthetic people and cameras, and the tracklets filmed in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nl3d.walkers.camera import Camera, draw_camera, expose, record, sensor_size
from nl3d.walkers.draws import Draws
from nl3d.walkers.figure import Place, draw_person
from nl3d.walkers.identity import Identity, draw_identity
from nl3d.walkers.raster import Boxes, Canvas
from nl3d.walkers.scene import Obstacle, draw_obstacles, draw_scene, draw_thing, look
from nl3d.walkers.skeleton import View, walking_speed

NOMINAL_FRAMES = 64  # length of the stretch that the paper samples from; obstacles pass within it
BOX_ASPECT = 0.43  # width / height of the boxes in the scene, whatever the size of the frames


@dataclass(frozen=True, kw_only=True)
class WalkerWorld:
    """Synthetic people filmed by cameras that differ: ``(seed, pid, camid, tracklet) -> frames``.

    Replaces a video re-identification data set in tests and demonstrations. Every frame depends only on its numbers:
    there are no files, no global random state, and calls may come in any order. Walkers differ in clothes, build and
    gait. Some groups of ``group_size`` successive pids are dressed alike: their members differ in motion only (and in
    build, unless ``same_build``). Test identities follow the training ones.

    Args:
        seed: Seed of the world.
        num_identities: Number of people; pids count from 0.
        num_test: Number of people to test on, the last ones.
        num_cameras: Number of cameras; camids count from 0.
        num_held_out_cameras: Number of cameras for testing only, the last ones; testing then uses no others. With 0,
            training and testing share all cameras.
        cameras_per_identity: Number of cameras that see each person.
        size: Height and width of the frames, pixels.
        frame_rate: Frames per second.
        group_size: Pids per group.
        alike: Share of the groups that are dressed alike.
        same_build: Whether people dressed alike also have one build, so that they differ in motion only.
        difficulty: Factor on the next five: 0 is clean, 1 the default, 2 heavy.
        camera_style: Strength of colour casts, contrast and light.
        clutter: Contrast of the background, full from 2 on; at 0 it is grey.
        degradation: Strength of low resolution, blur, noise and compression.
        misalignment: Strength of errors, drift and jitter of the boxes.
        occlusion: Frequency of obstacles in front of a walker.
        looseness: Largest margin of the boxes as a share of the walker's height, drawn per tracklet, as some detectors
            leave one. ``difficulty`` does not change it.

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
            pid: The person.
            camid: The camera.
            tracklet: Number of the tracklet, from 0 without end. Each is another walk past the camera.
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
        """Film chosen frames of a tracklet in any order; one call for all is several times faster than one per frame.

        Args:
            pid: The person.
            camid: The camera.
            tracklet: Number of the tracklet.
            indices: Numbers of the frames, from 0.

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
        return _Shot(self, (pid, camid, tracklet), np.asarray(indices, dtype=np.int64)).film()

    def identity(self, pid: int) -> Identity:
        """Return clothes, build and gait of a person, as ground truth."""
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
        """Return the style of a camera."""
        _check_count(camid, name="camid", low=0, high=self.num_cameras - 1)
        return draw_camera(
            self.seed,
            camid,
            style=self.difficulty * self.camera_style,
            degradation=self.difficulty * self.degradation,
        )

    def group_of(self, pid: int) -> int:
        """Return the lowest pid that is dressed like this one."""
        return self.identity(pid).group

    def obstacles(self, pid: int, camid: int, tracklet: int) -> tuple[Obstacle, ...]:
        """Return what passes in front of a walker or behind in the first 64 frames."""
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
        """Return the cameras that see a person, sorted."""
        _check_count(pid, name="pid", low=0, high=self.num_identities - 1)
        shared = self.num_cameras - self.num_held_out_cameras
        testing = self.num_held_out_cameras and pid in self.test_pids
        low, high = (shared, self.num_cameras) if testing else (0, shared)
        order = low + Draws(self.seed, "cameras", pid).permutation(high - low)
        return tuple(sorted(int(camid) for camid in order[: self.cameras_per_identity]))


class _Shot:
    """Geometry and light of some frames of one tracklet, from which they are drawn."""

    def __init__(self, world: WalkerWorld, key: tuple[int, int, int], frames: np.ndarray) -> None:
        self.world, self.key, self.frames = world, key, frames
        self.person, self.camera = world.identity(key[0]), world.camera(key[1])
        self.times = frames / world.frame_rate
        person, camera = self.person, self.camera
        draws = Draws(world.seed, "walk", *key)
        self.phase = 2 * np.pi * (draws.uniform() + person.gait.cadence * (1 + 0.02 * draws.normal()) * self.times)
        heading = camera.yaw + draws.uniform(-0.35, 0.35) + np.pi * draws.chance(0.3)
        yaw = heading + 0.12 * np.sin(draws.uniform(0, 7) + self.times * draws.uniform(0.2, 0.7))
        self.view = View(yaw, camera.pitch, camera.distance * draws.uniform(0.8, 1.25))
        self.origin = draws.uniform(0, 16)
        wobble = draws.normals(2)
        self.light = 1 + 0.06 * self.style * np.sin(draws.uniform(0, 7) + self.times * draws.uniform(0.3, 1.5))
        self.light *= np.exp(0.15 * self.style * wobble[0])
        self.sharpness = float(np.exp(0.2 * wobble[1]))
        self.boxes = self.place_boxes()

    @property
    def style(self) -> float:
        return self.world.difficulty * self.world.camera_style

    def draws(self, what: str, frame: int) -> Draws:
        """Return the draws of one frame, which do not depend on the frames filmed with it."""
        return Draws(self.world.seed, what, *self.key, int(frame))

    def place_boxes(self) -> Boxes:
        """Place boxes around the walker, with the errors of the world's misalignment."""
        build, view, still = self.person.build, self.view, np.zeros((len(self.frames), 3))
        crown = view.project(still + np.array([0.0, 0.0, build.height]))[:, 1]
        soles = view.project(still)[:, 1] + 0.3 * np.abs(np.cos(view.yaw)) * np.sin(view.pitch)
        off = self.world.difficulty * self.world.misalignment
        draws = Draws(self.world.seed, "boxes", *self.key)
        miss = draws.normals(4) * np.array([0.045, 0.025, 0.04, 0.04])
        if draws.chance(0.1):  # a poor detection: half a body, or much street around it
            miss += np.array([draws.uniform(-0.2, 0.2), draws.uniform(-0.2, 0.2), draws.uniform(-0.15, 0.25), 0.0])
        waves = draws.uniforms(16).reshape(4, 4)
        turns = [(a + (0.15 + 0.3 * b) * self.times, c + (0.5 + d) * self.times) for a, b, c, d in waves]
        drift = np.stack([np.sin(2 * np.pi * slow) + np.sin(2 * np.pi * fast) / 3 for slow, fast in turns])
        drift *= np.array([[0.06], [0.025], [0.04], [0.02]])
        jitter = np.stack([self.draws("jitter", frame).normals(4) for frame in self.frames])
        shift = off * (miss[:, None] + drift + jitter.T * np.array([[0.012], [0.008], [0.01], [0.005]]))
        margin = 1.05 + self.world.looseness * Draws(self.world.seed, "margin", *self.key).uniform()
        height = (soles - crown) * margin * np.exp(shift[2])
        width = BOX_ASPECT * height * np.exp(shift[3])
        middle = (soles + crown) / 2 + shift[1] * height
        return Boxes(left=shift[0] * width - width / 2, top=middle - height / 2, width=width, height=height)

    def film(self) -> Tensor:
        """Draw the frames, uint8 ``(T, 3, H, W)``."""
        world, camera = self.world, self.camera
        sensor = sensor_size(camera, *world.size, sharpness=self.sharpness)
        scene = draw_scene(world.seed, camera.camid, pitch=camera.pitch, clutter=world.difficulty * world.clutter)
        speed = walking_speed(self.person.build, self.person.gait)
        scroll = self.origin + 0.8 * speed * np.sin(self.view.yaw) * self.times
        canvas = Canvas(look(scene, self.boxes, scroll, sensor), self.boxes, light=camera.light)
        self.shadow(canvas)
        draw_person(canvas, self.person, self.phase, self.view)
        for obstacle in world.obstacles(*self.key):
            if obstacle.kind in ("person", "behind"):
                self.passer(canvas, obstacle)
            else:
                draw_thing(canvas, obstacle, self.times)
        exposed = expose(canvas.rgb, camera, self.light)
        noise = [self.draws("noise", frame) for frame in self.frames]
        return record(exposed, camera, noise, world.size)

    def shadow(self, canvas: Canvas) -> None:
        """Draw a dark patch under the feet."""
        dark = np.zeros((3, 1, 1, 1), dtype=np.float32)
        ends = []
        for side in (-0.16, 0.16):
            end = self.view.project(np.zeros((len(self.frames), 3)))
            end[:, 0] += side + 0.15 * self.camera.light
            end[:, 2] = -500.0
            ends.append(end)
        canvas.capsule(ends[0], ends[1], 0.1, 0.1, lambda along, across, frames: dark, opacity=0.4)

    def passer(self, canvas: Canvas, obstacle: Obstacle) -> None:
        """Draw another person, who has no pid."""
        number = -1 - obstacle.number
        other = draw_identity(
            self.world.seed, number, group=number, place=0, group_size=1, alike=False, same_build=False
        )
        heading = np.pi / 2 * np.sign(obstacle.speed) + 0.5 * np.sin(obstacle.number)
        view = View(np.full_like(self.times, heading), self.view.pitch, self.view.distance)
        phase = 2 * np.pi * (obstacle.number * 0.37 + other.gait.cadence * self.times)
        place = Place(right=obstacle.offset(self.times), nearer=obstacle.nearer)
        draw_person(canvas, other, phase, view, place=place)


def _check_count(value: int, *, name: str, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < low or (high is not None and value > high):
        rule = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {rule}, got {value}")
