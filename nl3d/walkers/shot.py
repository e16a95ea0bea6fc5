"""Filming: the frames of one walk past one camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from nl3d.walkers.camera import expose, record, sensor_size
from nl3d.walkers.draws import Draws
from nl3d.walkers.figure import Place, draw_person
from nl3d.walkers.identity import draw_identity
from nl3d.walkers.raster import Boxes, Canvas
from nl3d.walkers.scene import Obstacle, draw_scene, draw_thing, look
from nl3d.walkers.skeleton import View, walking_speed

if TYPE_CHECKING:
    from nl3d.walkers.world import WalkerWorld

BOX_ASPECT = 0.43  # width / height of the boxes in the scene, whatever size they are handed on in


def film(world: WalkerWorld, pid: int, camid: int, tracklet: int, indices: np.ndarray) -> Tensor:
    """Film the frames ``indices`` ``(T,)`` of a tracklet: uint8 ``(T, 3, H, W)``."""
    return _Shot(world, (pid, camid, tracklet), indices).film()


class _Shot:
    """Some frames of one tracklet in the making."""

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
        """Draws that belong to one frame, whichever frames are filmed with it."""
        return Draws(self.world.seed, what, *self.key, int(frame))

    def place_boxes(self) -> Boxes:
        """Boxes around the walker, as far off as the world says."""
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
        """The dark patch that keeps a walker from floating."""
        dark = np.zeros((3, 1, 1, 1), dtype=np.float32)
        ends = []
        for side in (-0.16, 0.16):
            end = self.view.project(np.zeros((len(self.frames), 3)))
            end[:, 0] += side + 0.15 * self.camera.light
            end[:, 2] = -500.0
            ends.append(end)
        canvas.capsule(ends[0], ends[1], 0.1, 0.1, lambda along, across, frames: dark, opacity=0.4)

    def passer(self, canvas: Canvas, obstacle: Obstacle) -> None:
        """Another person, who is nobody's pid."""
        number = -1 - obstacle.number
        other = draw_identity(
            self.world.seed, number, group=number, place=0, group_size=1, alike=False, same_build=False
        )
        heading = np.pi / 2 * np.sign(obstacle.speed) + 0.5 * np.sin(obstacle.number)
        view = View(np.full_like(self.times, heading), self.view.pitch, self.view.distance)
        phase = 2 * np.pi * (obstacle.number * 0.37 + other.gait.cadence * self.times)
        place = Place(right=obstacle.offset(self.times), nearer=obstacle.nearer)
        draw_person(canvas, other, phase, view, place=place)
