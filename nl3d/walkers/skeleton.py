"""Motion of the body: joints in three dimensions from build, gait and phase, and their projection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nl3d.walkers.identity import Build, Gait

Joints = dict[str, np.ndarray]
"""Name to ``(T, 3)``: metres forwards, to the walker's left and up, from the ground below the hips."""


def walk(build: Build, gait: Gait, phase: np.ndarray) -> Joints:
    """Return the joints of a walker at each phase."""
    thigh, shin = 0.53 * build.leg, 0.47 * build.leg
    upper_arm, forearm = 0.54 * build.arm, 0.46 * build.arm
    zero = np.zeros_like(phase)
    joints: Joints = {}
    reach = []
    legs = {}
    for side, offset in (("left", 0.0), ("right", np.pi)):
        angle = phase + offset
        hip = gait.swing * np.sin(angle) + 0.12 * gait.swing
        bend = 0.06 + gait.knee * np.maximum(np.cos(angle + 0.45), 0.0) ** 2  # bent while the leg swings forwards
        lower = hip - bend
        # toes point down as the foot leaves the ground, and up as the heel reaches it
        foot = 0.35 * np.sin(angle) * np.abs(np.sin(angle)) - 0.4 * bend
        legs[side] = (hip, lower, foot)
        reach.append(thigh * np.cos(hip) + shin * np.cos(lower))
    # the lower foot is on the ground, so the hips rise and fall twice per stride
    ankle = 0.045 * build.height
    standing = np.maximum(reach[0], reach[1])
    level = thigh * np.cos(0.7 * gait.swing) + shin * np.cos(0.7 * gait.swing)
    rise = ankle + level + gait.bounce * (standing - level)
    pelvis = np.stack([zero, gait.sway * np.cos(phase), rise], 1)
    joints["pelvis"] = pelvis

    for side, sign in (("left", 1.0), ("right", -1.0)):
        hip, lower, foot = legs[side]
        joints[f"{side}_hip"] = pelvis + _point(zero, zero + sign * build.hip, zero)
        joints[f"{side}_knee"] = joints[f"{side}_hip"] + thigh * _point(np.sin(hip), zero, -np.cos(hip))
        joints[f"{side}_ankle"] = joints[f"{side}_knee"] + shin * _point(np.sin(lower), zero, -np.cos(lower))
        toe = 0.105 * build.height * _point(np.cos(foot), zero + 0.12 * sign, np.sin(foot))
        joints[f"{side}_heel"] = joints[f"{side}_ankle"] - 0.16 * toe - np.array([0, 0, 0.4 * ankle])
        joints[f"{side}_toe"] = joints[f"{side}_heel"] + toe

    trunk = 0.82 * build.height - build.leg - ankle  # hips to shoulders
    up = np.array([np.sin(gait.lean), 0.0, np.cos(gait.lean)])
    joints["waist"] = pelvis + 0.3 * trunk * up
    joints["chest"] = pelvis + 0.78 * trunk * up
    joints["collar"] = pelvis + trunk * up
    joints["neck"] = pelvis + 1.07 * trunk * up
    nod = 0.5 * (rise - ankle - level)[:, None] * np.array([0.6, 0.0, -0.2])
    joints["head"] = pelvis + (trunk + 0.105 * build.height) * up + nod + np.array([0.014 * build.height, 0, 0])

    for side, sign, offset in (("left", 1.0, np.pi), ("right", -1.0, 0.0)):
        angle = phase + offset  # each arm swings against the leg of its side
        turn = gait.twist * np.sin(angle)
        spread = build.shoulder * _point(np.sin(turn), sign * np.cos(turn), zero)
        joints[f"{side}_shoulder"] = joints["collar"] + spread - np.array([0, 0, 0.02 * build.height])
        arm = gait.arm_swing * np.sin(angle) + 0.1 * gait.arm_swing - 0.05
        bend = gait.elbow + 0.5 * gait.arm_swing * np.maximum(np.sin(angle), 0.0)
        out = 0.1 + 0.06 * build.girth
        joints[f"{side}_elbow"] = joints[f"{side}_shoulder"] + upper_arm * _point(
            np.sin(arm), zero + sign * out, -np.cos(arm)
        )
        joints[f"{side}_wrist"] = joints[f"{side}_elbow"] + forearm * _point(
            np.sin(arm + bend), zero - 0.3 * sign * gait.elbow * out, -np.cos(arm + bend)
        )
    return joints


def walking_speed(build: Build, gait: Gait) -> float:
    """Return metres per second over the ground."""
    return 4.0 * build.leg * float(np.sin(gait.swing)) * gait.cadence


def _point(forwards: np.ndarray, left: np.ndarray, up: np.ndarray) -> np.ndarray:
    return np.stack([forwards, left, up], 1)


@dataclass(frozen=True)
class View:
    """Position of a camera relative to a walker.

    Args:
        yaw: Heading ``(T,)`` in radians: 0 walks towards the camera, pi/2 to the right of the picture, pi away.
        pitch: Angle by which the camera looks down, radians.
        distance: Metres from camera to walker; perspective is stronger when near.
    """

    yaw: np.ndarray
    pitch: float
    distance: float

    def project(self, point: np.ndarray) -> np.ndarray:
        """Project ``(T, 3)`` joints to ``(T, 4)``: x to the right, y down, nearness in metres, and scale."""
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        right = point[:, 0] * sin + point[:, 1] * cos
        towards = point[:, 0] * cos - point[:, 1] * sin
        up = point[:, 2] - 0.9  # from the middle of the body, which perspective does not move
        near = towards * np.cos(self.pitch) + up * np.sin(self.pitch)
        height = up * np.cos(self.pitch) - towards * np.sin(self.pitch)
        scale = self.distance / (self.distance - near)
        return np.stack([right * scale, -height * scale, near, scale], 1).astype(np.float32)
