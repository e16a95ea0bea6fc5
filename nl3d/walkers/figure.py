"""Drawing of one clothed person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nl3d.walkers.identity import Cloth, Colour, Identity
from nl3d.walkers.raster import Canvas, Paint
from nl3d.walkers.skeleton import Joints, View, walk

Radius: TypeAlias = float | np.ndarray
"""Metres, for all frames or ``(T,)``."""


@dataclass(frozen=True)
class Place:
    """Position of a second person relative to the one that the camera follows.

    Args:
        right: Metres to the right ``(T,)``.
        nearer: Metres towards the camera; negative is behind.
    """

    right: np.ndarray
    nearer: float


def draw_person(canvas: Canvas, person: Identity, phase: np.ndarray, view: View, *, place: Place | None = None) -> None:
    """Draw a walking person. Nearer parts hide farther ones, in any order of calls."""
    figure = _Figure(canvas, person, walk(person.build, person.gait, phase), view, place)
    figure.legs()
    figure.trunk()
    figure.arms()
    figure.head()
    figure.bag()


class _Figure:
    def __init__(self, canvas: Canvas, person: Identity, joints: Joints, view: View, place: Place | None) -> None:
        self.canvas, self.person, self.joints, self.view, self.place = canvas, person, joints, view, place
        self.thick = person.build.girth * person.build.height / 1.72
        self.yaw = view.yaw.astype(np.float32)[:, None, None]

    def part(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[Radius, Radius],
        paint: Paint,
        *,
        flat: bool = False,
        lift: float = 0.0,
    ) -> None:
        """Draw a limb between two joints, ``lift`` metres nearer for outer clothes."""
        length = np.sqrt(((start - end) ** 2).sum(1))
        first, last = self.project(start), self.project(end)
        first[:, 2] += lift
        last[:, 2] += lift
        self.canvas.capsule(first, last, radii[0], radii[1], paint, length=length, flat=flat)

    def project(self, point: np.ndarray) -> np.ndarray:
        point = self.view.project(point)
        if self.place is None:
            return point
        scale = np.float32(self.view.distance / max(0.5, self.view.distance - self.place.nearer))
        drop = np.float32(self.place.nearer * np.sin(self.view.pitch) + 0.9 * (1 - 1 / scale))
        x, y = point[:, 0] * scale + self.place.right, (point[:, 1] + drop) * scale
        return np.stack([x, y, point[:, 2] + self.place.nearer, point[:, 3] * scale], 1).astype(np.float32)

    def tissue(self, cloth: Cloth, radius: float, *, start: float = 0.0, front: bool = True) -> Paint:
        """Return the paint of a garment around a limb; ``start`` metres of it are above the limb's start."""
        return _tissue(cloth, self.yaw, radius, start=start, front=front)

    def width_seen(self, side: float, front: float) -> np.ndarray:
        """Return half the width of an oval body as the camera sees it, ``(T,)``."""
        width: np.ndarray = np.hypot(side * np.cos(self.view.yaw), front * np.sin(self.view.yaw))
        return width

    def legs(self) -> None:
        clothes, joints, k = self.person.clothes, self.joints, self.thick
        thigh = 0.53 * self.person.build.leg
        skin = _plain(clothes.skin)
        covered = self.tissue(clothes.lower, 0.08, front=False)
        below = self.tissue(clothes.lower, 0.06, start=thigh, front=False)
        bare = clothes.hem in ("shorts", "skirt")
        for side in ("left", "right"):
            hip, knee, ankle = (joints[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
            shoes = _plain(clothes.shoes)
            self.part(hip, knee, (0.094 * k, 0.068 * k), skin if clothes.hem == "skirt" else covered)
            self.part(knee, ankle, (0.055 * k, 0.038 * k) if bare else (0.068 * k, 0.054 * k), skin if bare else below)
            self.part(joints[f"{side}_heel"], joints[f"{side}_toe"], (0.045, 0.03), shoes)
            if clothes.hem == "shorts":
                self.part(hip, knee + 0.15 * (knee - hip), (0.1 * k, 0.085 * k), covered, flat=True)

    def trunk(self) -> None:
        person, joints, k = self.person, self.joints, self.thick
        clothes, build = person.clothes, person.build
        chest = self.width_seen(0.92 * build.shoulder + 0.025 * k, 0.12 * k)
        waist = self.width_seen(0.122 * k + 0.3 * build.hip, 0.115 * k)
        hips = self.width_seen(build.hip + 0.09 * k, 0.122 * k)
        upper = self.tissue(clothes.upper, 0.17)
        lower = self.tissue(clothes.lower, 0.17, front=False)
        top = 0.85 * chest
        self.part(joints["chest"], joints["waist"], (chest, waist), upper)
        self.part(
            joints["left_shoulder"], joints["right_shoulder"], (0.052 * k, 0.052 * k), _plain(clothes.upper.colour)
        )
        self.part(joints["neck"], joints["chest"], (0.045, top), upper)
        drop = np.array([0.0, 0.0, 1.0])
        seat = joints["pelvis"] - 0.02 * drop
        if clothes.hem in ("coat", "skirt"):
            long = 0.5 * build.leg
            knees = (joints["left_knee"] + joints["right_knee"]) / 2
            bottom = np.stack([knees[:, 0], knees[:, 1], joints["pelvis"][:, 2] - long], 1)
            apart = np.abs(joints["left_knee"] - joints["right_knee"])[:, 0]
            wide = hips * 1.05 + 0.28 * apart * np.abs(np.sin(self.view.yaw))
            if clothes.hem == "coat":
                coat = self.tissue(clothes.upper, 0.17, start=0.35)
                self.part(joints["waist"], bottom, (waist * 1.04, wide), coat, flat=True, lift=0.1)
                return
            self.part(joints["waist"], bottom, (waist * 0.98, wide * 1.04), lower, flat=True, lift=0.1)
        else:
            self.part(joints["waist"], seat - 0.07 * drop, (waist * 0.9, hips * 0.97), lower, flat=True)
        hem = self.tissue(clothes.upper, 0.17, start=0.25)
        self.part(joints["waist"], seat + 0.03 * drop, (waist, hips * 1.02), hem, flat=True, lift=0.1)

    def arms(self) -> None:
        clothes, joints, k = self.person.clothes, self.joints, self.thick
        skin = _plain(clothes.skin)
        sleeve = self.tissue(
            Cloth(
                colour=clothes.upper.colour,
                second=clothes.upper.second,
                pattern=clothes.upper.pattern if clothes.upper.pattern in ("hoops", "checks", "dots") else "plain",
                period=clothes.upper.period,
            ),
            0.05,
        )
        for side in ("left", "right"):
            shoulder, elbow, wrist = (joints[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
            self.part(shoulder, elbow, (0.051 * k, 0.042 * k), skin if clothes.sleeves == "none" else sleeve)
            self.part(elbow, wrist, (0.042 * k, 0.032 * k), sleeve if clothes.sleeves == "long" else skin)
            self.part(wrist, wrist + 0.35 * (wrist - elbow), (0.035, 0.03), skin)

    def head(self) -> None:
        person, joints = self.person, self.joints
        clothes, r = person.clothes, person.build.head
        head, up, ahead = joints["head"], np.array([0.0, 0.0, r]), np.array([r, 0.0, 0.0])
        skin, hair = _plain(clothes.skin), _plain(clothes.hair)
        self.part(joints["neck"] + 0.3 * up, joints["collar"], (0.05, 0.06), skin)
        self.part(head + 0.5 * up, head - 0.55 * up + 0.15 * ahead, (r, 0.8 * r), skin)
        if clothes.hair_style != "bald":
            self.part(head + 0.62 * up - 0.3 * ahead, head - 0.4 * up - 0.5 * ahead, (1.06 * r, 0.8 * r), hair)
        if clothes.hair_style == "long":
            self.part(head - 0.6 * ahead, head - 2.4 * up - 0.9 * ahead, (0.95 * r, 0.75 * r), hair)
        if clothes.hair_style == "bun":
            self.part(head + 0.6 * up - 1.3 * ahead, head + 0.5 * up - 1.4 * ahead, (0.5 * r, 0.5 * r), hair)
        if clothes.hat:
            hat = _plain(clothes.hat_colour)
            self.part(head + 1.65 * up, head + 0.55 * up, (0.85 * r, 1.15 * r), hat, flat=True, lift=0.03)
            self.part(head + 0.6 * up, head + 0.5 * up + 1.4 * ahead, (0.25 * r, 0.15 * r), hat)

    def bag(self) -> None:
        clothes, joints, k = self.person.clothes, self.joints, self.thick
        paint, down, back = _plain(clothes.bag_colour), np.array([0.0, 0.0, -1.0]), np.array([-1.0, 0.0, 0.0])
        if clothes.bag == "backpack":
            top = joints["chest"] + (0.1 + 0.08 * k) * back
            wide = self.width_seen(0.14, 0.085)
            self.part(top - 0.06 * down, top + 0.22 * down, (wide, wide * 1.1), paint)
        elif clothes.bag == "handbag":
            hand = joints["right_wrist"] + 0.08 * down
            self.part(hand + 0.1 * down, hand + 0.27 * down, (self.width_seen(0.05, 0.13),) * 2, paint, flat=True)
        elif clothes.bag == "shoulder":
            hip = joints["left_hip"] + np.array([0.0, 0.09 * k, 0.0])
            self.part(hip - 0.1 * down, hip + 0.13 * down, (self.width_seen(0.07, 0.15),) * 2, paint, flat=True)
            self.part(joints["right_shoulder"], hip, (0.018, 0.018), paint)
        elif clothes.bag == "case":
            ground = joints["pelvis"] * np.array([1.0, 1.0, 0.0]) + np.array([-0.55, -0.2, 0.05])
            wide = self.width_seen(0.2, 0.13)
            self.part(ground - 0.55 * down, ground, (wide, wide), paint, flat=True)
            self.part(joints["right_wrist"], ground - 0.55 * down, (0.015, 0.015), paint)


def _plain(colour: Colour) -> Paint:
    values = np.array(colour, dtype=np.float32)[:, None, None, None]
    return lambda along, across, frames: values


def _tissue(cloth: Cloth, yaw: np.ndarray, radius: float, *, start: float, front: bool) -> Paint:
    first = np.array(cloth.colour, dtype=np.float32)[:, None, None, None]
    change = np.array(cloth.second, dtype=np.float32)[:, None, None, None] - first
    if cloth.pattern == "plain" or (cloth.pattern in ("open", "block") and not front):
        return lambda along, across, frames: first
    turn = np.float32(2 * np.pi / cloth.period)
    girth = np.float32(radius) * turn

    def paint(along: np.ndarray, across: np.ndarray, frames: slice) -> np.ndarray:
        around = across * np.float32(1.25)  # the angle on a round limb; straight enough at this size
        if cloth.pattern == "open":  # a strip down the front, seen from the front only
            ahead = (around - yaw[frames] + np.float32(np.pi)) % np.float32(2 * np.pi) - np.float32(np.pi)
            mix = (np.float32(0.42) - np.abs(ahead)) * np.float32(6)
        elif cloth.pattern == "block":
            mix = (along + np.float32(start - 0.2)) * np.float32(40)
        elif cloth.pattern == "hoops":
            mix = np.sin((along + np.float32(start)) * turn) * np.float32(2)
        else:
            stripes = np.sin((around - yaw[frames]) * girth)
            if cloth.pattern == "stripes":
                mix = stripes * np.float32(2)
            else:
                mix = stripes * np.sin((along + np.float32(start)) * turn) * np.float32(3)
                if cloth.pattern == "dots":
                    mix -= np.float32(0.8)
        mix += np.float32(0.5)
        np.clip(mix, 0, 1, out=mix)
        return first + change * mix

    return paint
