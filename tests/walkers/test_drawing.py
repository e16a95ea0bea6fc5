from __future__ import annotations

import numpy as np
import pytest
import torch

from nl3d.walkers.camera import compress
from nl3d.walkers.draws import Draws
from nl3d.walkers.raster import Boxes, Canvas
from nl3d.walkers.skeleton import View, walk
from nl3d.walkers.world import WalkerWorld

WORLD = WalkerWorld(seed=3)
PHASE = np.linspace(0, 2 * np.pi, 64, endpoint=False)


@pytest.fixture(params=[0, 5, 10])
def person(request):
    return WORLD.identity(request.param)


def canvas(num_frames: int = 1) -> Canvas:
    ones = np.ones(num_frames)
    boxes = Boxes(left=-ones, top=-ones, width=2 * ones, height=2 * ones)
    return Canvas(np.zeros((3, num_frames, 40, 40), dtype=np.float32), boxes)


def point(x: float, y: float, near: float = 0.0) -> np.ndarray:
    return np.array([[x, y, near, 1.0]], dtype=np.float32)


def plain(*colour: float):
    return lambda along, across, frames: np.array(colour, dtype=np.float32)[:, None, None, None]


def test_bones_keep_their_length_and_legs_swing_as_the_gait_says(person):
    joints = walk(person.build, person.gait, PHASE)
    for start, end in [("hip", "knee"), ("knee", "ankle"), ("heel", "toe"), ("shoulder", "elbow"), ("elbow", "wrist")]:
        for side in ("left", "right"):
            lengths = np.linalg.norm(joints[f"{side}_{start}"] - joints[f"{side}_{end}"], axis=1)
            assert lengths.std() < 0.01 * lengths.mean()
    thigh = joints["left_knee"] - joints["left_hip"]
    angle = np.arctan2(thigh[:, 0], -thigh[:, 2])
    assert (angle.max() - angle.min()) / 2 == pytest.approx(person.gait.swing, rel=0.01)
    assert angle.argmax() == 16  # a quarter of a stride: the left leg is in front


def test_left_and_right_take_turns_and_arms_swing_against_legs(person):
    joints = walk(person.build, person.gait, PHASE)
    for joint in ("knee", "ankle", "elbow", "wrist"):
        left, right = joints[f"left_{joint}"], joints[f"right_{joint}"]
        np.testing.assert_allclose(np.roll(right, 32, 0)[:, [0, 2]], left[:, [0, 2]], atol=1e-6)
    ahead = joints["left_knee"][:, 0] - joints["left_hip"][:, 0]
    arm = joints["left_elbow"][:, 0] - joints["left_shoulder"][:, 0]
    assert np.corrcoef(ahead, arm)[0, 1] < -0.95


def test_one_foot_is_near_the_ground_and_the_crown_at_the_height(person):
    joints = walk(person.build, person.gait, PHASE)
    lowest = np.minimum(joints["left_heel"][:, 2], joints["right_heel"][:, 2])
    assert np.abs(lowest).max() < 0.15
    crown = joints["head"][:, 2].mean() + 1.5 * person.build.head
    assert crown == pytest.approx(person.build.height, rel=0.06)


def test_views_from_all_sides():
    yaw = np.array([0.0, np.pi / 2, np.pi, -np.pi / 2])
    view = View(yaw, pitch=0.0, distance=1e6)
    ahead = view.project(np.tile([1.0, 0.0, 0.9], (4, 1)))
    np.testing.assert_allclose(ahead[:, 0], [0, 1, 0, -1], atol=1e-5)  # to the right
    np.testing.assert_allclose(ahead[:, 2], [1, 0, -1, 0], atol=1e-5)  # nearer
    left = view.project(np.tile([0.0, 1.0, 0.9], (4, 1)))
    np.testing.assert_allclose(left[:, 0], [1, 0, -1, 0], atol=1e-5)
    np.testing.assert_allclose(left[:, 2], [0, -1, 0, 1], atol=1e-5)
    near, far = View(yaw, 0.3, 3.0), View(yaw, 0.3, 30.0)
    head = np.tile([0.5, 0.0, 1.7], (4, 1))
    assert near.project(head)[0, 3] > far.project(head)[0, 3] > 1  # perspective: what is nearer is larger
    assert far.project(head * [1, 1, 0])[0, 1] > far.project(head * [0, 0, 0])[0, 1]  # and lower, seen from above


def test_a_capsule_has_the_area_that_geometry_says():
    drawn = canvas()
    drawn.capsule(point(-0.4, 0.1), point(0.4, 0.1), 0.2, 0.2, plain(1.0, 0.0, 0.0))
    covered = drawn.depth > -100
    assert covered.mean() * 4 == pytest.approx(0.8 * 0.4 + np.pi * 0.2**2, rel=0.03)
    flat = canvas()
    flat.capsule(point(-0.4, 0.1), point(0.4, 0.1), 0.2, 0.2, plain(1.0, 0.0, 0.0), flat=True)
    assert (flat.depth > -100).mean() * 4 == pytest.approx(0.8 * 0.4, rel=0.06)


@pytest.mark.parametrize("near_first", [True, False])
def test_what_is_nearer_hides_what_is_farther(near_first):
    drawn = canvas()
    limbs = [(point(-0.5, 0, 1.0), point(0.5, 0, 1.0), (1.0, 0, 0)), (point(0, -0.5), point(0, 0.5), (0, 1.0, 0))]
    for start, end, colour in limbs if near_first else limbs[::-1]:
        drawn.capsule(start, end, 0.2, 0.2, plain(*colour))
    red, green, _ = drawn.rgb[:, 0]
    assert red[20, 20] > 0.9
    assert green[20, 20] == 0
    assert green[10, 20] > 0.9


def test_limbs_may_cross_in_depth():
    drawn = canvas()
    drawn.capsule(point(-0.6, 0, 1.0), point(0.6, 0, -1.0), 0.2, 0.2, plain(1.0, 0, 0))
    drawn.capsule(point(-0.6, 0, -1.0), point(0.6, 0, 1.0), 0.2, 0.2, plain(0, 1.0, 0))
    red, green, _ = drawn.rgb[:, 0]
    assert red[20, 10] > 0.9 > 0.1 > green[20, 10]
    assert green[20, 30] > 0.9 > 0.1 > red[20, 30]


def test_what_is_beside_the_frame_is_not_drawn():
    drawn = canvas()
    drawn.capsule(point(3.0, 0), point(3.0, 1.0), 0.2, 0.2, plain(1.0, 1.0, 1.0))
    assert not drawn.rgb.any()


def test_draws_are_named_and_stay():
    assert Draws(7, "a", 1).uniforms(3).tolist() == Draws(7, "a", 1).uniforms(3).tolist()
    assert Draws(7, "a", 1).uniform() != Draws(7, "a", 2).uniform()
    assert Draws(7, "a", 1).uniform() == pytest.approx(
        0.8710102073460523, abs=1e-15
    )  # on every machine, with every NumPy
    stream = Draws(0, "many")
    values, normals, noise = stream.uniforms(20_000), stream.normals(5_000), stream.noise(20_001)
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert (normals.mean(), normals.std()) == pytest.approx((0, 1), abs=0.05)
    assert noise.shape == (20_001,)
    assert (noise.mean(), noise.std()) == pytest.approx((0, 1), abs=0.03)
    picks = [stream.pick("abc", [1, 0, 3]) for _ in range(2000)]
    assert picks.count("b") == 0
    assert picks.count("c") / 2000 == pytest.approx(0.75, abs=0.04)
    assert sorted(stream.permutation(9)) == list(range(9))


@pytest.mark.parametrize("size", [(16, 8), (13, 9)])
def test_compression_loses_more_at_lower_quality(size):
    picture = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    losses = [float((compress(picture, quality) - picture).abs().mean()) for quality in (95, 60, 15)]
    assert 0 < losses[0] < losses[1] < losses[2]
    still = torch.full((1, 3, *size), 0.5)
    torch.testing.assert_close(compress(still, 80), still, atol=0.02, rtol=0)
