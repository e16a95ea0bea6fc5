from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from nl3d.walkers import WalkerTracklets, WalkerWorld

SMALL = WalkerWorld(seed=3, size=(48, 24), num_identities=24, num_test=12)
CLEAN = replace(SMALL, difficulty=0.0)

# Of pid 5, camera 2, tracklet 1 of SMALL. Change them with a line in the changelog: every stored result moves along.
CADENCE = 1.211082768238
YAW = 1.004181264118
QUARTERS = [
    [[94.86, 99.32], [102.95, 106.86]],
    [[97.75, 91.41], [101.48, 103.56]],
    [[91.59, 93.92], [95.93, 97.06]],
]


def pooled(frames: torch.Tensor) -> torch.Tensor:
    """Mean colours of the four quarters, ``(3, 2, 2)``."""
    return torch.nn.functional.adaptive_avg_pool2d(frames.float(), 2).mean(0)


def figure(world: WalkerWorld, pid: int, camid: int, tracklet: int, num_frames: int) -> torch.Tensor:
    """Where a clean world shows the walker: bool ``(T, H, W)``."""
    frames = world.tracklet(pid, camid, tracklet, num_frames=num_frames).float()
    plain = frames[:, :, :1, :1].mean(0)  # nothing but grey background up in the corner
    return (frames - plain).abs().sum(1) > 40


def alike_group(world: WalkerWorld) -> list[int]:
    groups: dict[int, list[int]] = {}
    for pid in range(world.num_identities):
        groups.setdefault(world.group_of(pid), []).append(pid)
    return next(pids for pids in groups.values() if len(pids) > 1)


def test_the_same_numbers_give_the_same_frames_and_leave_global_generators_alone():
    torch.manual_seed(0)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = SMALL.tracklet(5, 2, 1, num_frames=6)
    torch.testing.assert_close(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002
    torch.manual_seed(1)
    SMALL.tracklet(6, 2, 1, num_frames=3)  # nor does it matter what else was filmed
    assert torch.equal(SMALL.tracklet(5, 2, 1, num_frames=6), first)
    assert torch.equal(pickle.loads(pickle.dumps(SMALL)).tracklet(5, 2, 1, num_frames=6), first)


def test_the_same_on_every_machine():
    """Stored values; floating point may move a pixel by a level, not a quarter of a picture."""
    assert SMALL.identity(5).gait.cadence == pytest.approx(CADENCE, abs=1e-9)
    assert SMALL.camera(2).yaw == pytest.approx(YAW, abs=1e-9)
    torch.testing.assert_close(pooled(SMALL.tracklet(5, 2, 1, num_frames=4)), torch.tensor(QUARTERS), atol=0.3, rtol=0)


@pytest.mark.parametrize("difficulty", [0.0, 1.0, 2.0])
def test_frames_do_not_depend_on_which_others_are_filmed(difficulty):
    world = replace(SMALL, difficulty=difficulty)
    whole = world.tracklet(5, 2, 1, num_frames=20).int()
    part = world.tracklet(5, 2, 1, num_frames=4, start=3, step=5).int()
    chosen = world.frames(5, 2, 1, [18, 3, 3]).int()
    assert (whole[3:20:5] - part).abs().float().mean() < 0.02  # a matrix product may round another way
    assert (whole[[18, 3, 3]] - chosen).abs().float().mean() < 0.02


def test_people_stay_who_they_are_in_a_larger_world():
    larger = replace(SMALL, num_identities=48, num_test=24)
    assert larger.identity(5) == SMALL.identity(5)
    assert torch.equal(larger.tracklet(5, 2, 1, num_frames=2), SMALL.tracklet(5, 2, 1, num_frames=2))
    assert replace(SMALL, seed=4).identity(5).clothes != SMALL.identity(5).clothes


@pytest.mark.parametrize("size", [(8, 8), (33, 17), (64, 32), (40, 90)], ids=str)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_any_size(size, num_frames):
    frames = replace(SMALL, size=size).tracklet(2, 1, 0, num_frames=num_frames)
    assert frames.shape == (num_frames, 3, *size)
    assert frames.dtype == torch.uint8
    assert frames.is_contiguous()
    assert frames.float().std() > 5


def test_walkers_move_and_stills_do_not():
    moving, still = SMALL.tracklet(4, 1, 0, num_frames=6, step=4), SMALL.tracklet(4, 1, 0, num_frames=6, step=0)
    assert torch.equal(still, still[:1].expand_as(still))
    assert (moving[1:].float() - moving[:-1].float()).abs().mean() > 4


def test_cameras_change_the_picture_of_the_same_person():
    colours = torch.stack([pooled(SMALL.tracklet(4, camid, 0, num_frames=4)) for camid in range(6)])
    apart = torch.cdist(colours.flatten(1), colours.flatten(1)) + 1e3 * torch.eye(6)
    assert apart.min() > 3
    cameras = [SMALL.camera(camid) for camid in range(6)]
    assert len({camera.gains for camera in cameras}) == len({camera.person_height for camera in cameras}) == 6
    yaws = torch.tensor([camera.yaw for camera in cameras])
    views = torch.stack([yaws.cos(), yaws.sin()], 1)
    assert (torch.cdist(views, views) + torch.eye(6)).min() > 0.05  # and no two see the same side
    # Without style, the shirt has one colour everywhere, whatever the light.
    world = replace(CLEAN, size=(96, 48))
    people = {pid: world.identity(pid).clothes for pid in range(24)}
    pid = next(pid for pid, worn in people.items() if worn.upper.pattern == "plain" and worn.bag == "none")
    chests = [world.tracklet(pid, camid, 0, num_frames=8)[:, :, 26:32, 20:28] for camid in range(6)]
    shirts = torch.stack([chest.float().median(0).values.mean((1, 2)) for chest in chests])
    assert (shirts / shirts.sum(1, keepdim=True)).std(0).max() < 0.02


def test_degradation_takes_detail_away_and_adds_noise():
    def detail_and_noise(degradation: float) -> tuple[float, float]:
        world = replace(CLEAN, size=(128, 64), difficulty=1.0, degradation=degradation, clutter=0.0, camera_style=0.0)
        picture = replace(world, misalignment=0.0, occlusion=0.0).tracklet(4, 4, 0, num_frames=2).float()
        coarse = torch.nn.functional.avg_pool2d(picture, 3, 1, 1)
        corner = picture[:, :, :8, :8]  # nothing but plain background
        return float((picture - coarse)[..., 2:-2, 2:-2].abs().mean()), float((corner[0] - corner[1]).abs().mean())

    (sharp, clean), (blurred, noisy) = detail_and_noise(0.0), detail_and_noise(1.0)
    assert clean == 0
    assert noisy > 1
    assert blurred < 0.5 * sharp


def test_obstacles_hide_the_walker():
    world = replace(CLEAN, size=(96, 48), difficulty=1.0, occlusion=2.0, camera_style=0.0, clutter=0.0, degradation=0.0)
    free = replace(world, occlusion=0.0)
    shown = {}
    for tracklet in range(40):
        things = world.obstacles(4, 1, tracklet)
        for thing in things:
            if len(things) > 1 or thing.kind in shown or not 0.3 < thing.time < 2.2:
                continue
            middle = round(thing.time * world.frame_rate)
            hidden, seen = (w.frames(4, 1, tracklet, [0, middle]).int() for w in (world, free))
            shown[thing.kind] = float(((hidden - seen)[1].abs().sum(0) > 30).float().mean())
    assert free.obstacles(4, 1, 0) == ()
    assert set(shown) >= {"person", "pole", "box"}
    for kind in ("person", "pole", "box"):
        assert shown[kind] > 0.04, (kind, shown)


def test_boxes_drift_and_jitter():
    def centre(misalignment: float) -> torch.Tensor:
        """Where the head is from frame to frame, in rows: the gait's own bounce is the same in both worlds."""
        world = replace(CLEAN, size=(96, 48), difficulty=1.0, misalignment=misalignment, camera_style=0.0, clutter=0.0)
        mask = figure(replace(world, degradation=0.0, occlusion=0.0), 4, 1, 3, 50)
        columns = torch.arange(48.0)
        share = mask.float().sum(1)
        return (share * columns).sum(1) / share.sum(1)

    drifting, steady = centre(2.0), centre(0.0)
    assert drifting.std() > 2 * steady.std()
    assert drifting.diff().diff().abs().mean() > 2 * steady.diff().diff().abs().mean()


def test_loose_boxes_leave_a_margin():
    def heights(looseness: float) -> torch.Tensor:
        """Rows that the walker takes up, in each of some tracklets."""
        world = replace(CLEAN, size=(96, 48), looseness=looseness)
        masks = [figure(world, 4, 1, tracklet, 1)[0] for tracklet in range(12)]
        return torch.stack([mask.any(1).sum() for mask in masks]).float()

    tight, loose = heights(0.0), heights(0.8)
    share = loose / tight
    assert 0.53 < share.min() < 0.7  # 1.05 of the walker's height, or up to 1.85
    assert 0.8 < share.max() <= 1.0


def test_the_street_passes_by_who_walks_across_the_view():
    world = replace(CLEAN, size=(96, 48), clutter=2.0, difficulty=1.0, degradation=0.0, misalignment=0.0, occlusion=0.0)

    def change(camid: int) -> float:
        first, last = replace(world, camera_style=0.0).frames(4, camid, 0, [0, 25]).float()[..., :48, :4]
        return float((first - last).abs().mean())

    assert max(change(camid) for camid in range(6)) > 8


def test_groups_dressed_alike_differ_in_gait_only():
    group = alike_group(SMALL)
    assert len(group) == SMALL.group_size
    people = [SMALL.identity(pid) for pid in group]
    assert len({person.clothes for person in people}) == 1
    assert len({person.build for person in people}) == 1
    cadences = sorted(person.gait.cadence for person in people)
    assert min(b - a for a, b in pairwise(cadences)) > 0.03
    free = replace(SMALL, same_build=False)
    assert len({free.identity(pid).build for pid in group}) == len(group)
    nobody = replace(SMALL, alike=0.0)
    assert [nobody.group_of(pid) for pid in range(24)] == list(range(24))
    assert len({nobody.identity(pid).clothes for pid in range(24)}) == 24
    assert {replace(SMALL, alike=1.0).group_of(pid) for pid in range(24)} == set(range(0, 24, 4))


def test_the_period_of_the_gait_can_be_measured_and_tells_a_group_apart():
    world = replace(CLEAN, size=(64, 32))
    group = alike_group(world)
    sideways = max(range(6), key=lambda camid: abs(np.sin(world.camera(camid).yaw)))
    measured, true = [], []
    for pid in group:
        mask = figure(world, pid, sideways, 0, 256)[:, 40:].float()  # the legs
        columns = torch.arange(32.0)
        share = mask.sum(1) / mask.sum((1, 2))[:, None]
        middle = (share * columns).sum(1, keepdim=True)
        spread = (share * (columns - middle) ** 2).sum(1)  # widest at each of the two steps of a stride
        spectrum = torch.fft.rfft((spread - spread.mean()) * torch.hann_window(256), n=4096).abs()
        low, high = (int(hertz * 4096 / world.frame_rate) for hertz in (1.3, 2.6))  # the steps that people take
        measured.append(float((spectrum[low:high].argmax() + low) * world.frame_rate / 4096 / 2))
        true.append(world.identity(pid).gait.cadence)
    assert measured == pytest.approx(true, rel=0.07)  # each walk is up to some per cent slower or faster
    assert np.argsort(measured).tolist() == np.argsort(true).tolist()


def test_held_out_cameras_see_test_people_only():
    world = replace(SMALL, num_cameras=7, num_held_out_cameras=3, cameras_per_identity=2)
    assert {camid for pid in world.train_pids for camid in world.cameras_of(pid)} == {0, 1, 2, 3}
    assert {camid for pid in world.test_pids for camid in world.cameras_of(pid)} == {4, 5, 6}
    assert set(world.train_pids).isdisjoint(world.test_pids)
    assert all(len(world.cameras_of(pid)) == 2 for pid in range(24))


def test_lists_are_a_small_mars():
    train, query, gallery = (
        WalkerTracklets(SMALL, split, num_frames=2, step=8) for split in ("train", "query", "gallery")
    )
    assert (len(train), len(query), len(gallery)) == (72, 36, 72)
    assert set(query.keys) <= set(gallery.keys)
    assert set(train.pids.tolist()) == set(range(12))
    assert set(gallery.pids.tolist()) == set(range(12, 24))
    frames, pid, camid = query[7]
    assert (pid, camid) == (int(query.pids[7]), int(query.camids[7]))
    assert torch.equal(frames, SMALL.tracklet(*query.keys[7], num_frames=2, step=8))
    batch, pids, _ = next(iter(torch.utils.data.DataLoader(train, batch_size=3)))  # type: ignore[arg-type]
    assert batch.shape == (3, 2, 3, 48, 24)
    assert pids.dtype == torch.int64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SMALL.tracklet(24, 0, 0), "pid must be from 0 to 23, got 24"),
        (lambda: SMALL.tracklet(-1, 0, 0), "pid must be from 0 to 23, got -1"),
        (lambda: SMALL.tracklet(0, 6, 0), "camid must be from 0 to 5, got 6"),
        (lambda: SMALL.tracklet(0, 0, -1), "tracklet must be at least 0, got -1"),
        (lambda: SMALL.tracklet(0, 0, 0, num_frames=0), "num_frames must be at least 1, got 0"),
        (lambda: SMALL.tracklet(0, 0, 0, start=-1), "start must be at least 0, got -1"),
        (lambda: SMALL.tracklet(0, 0, 0, step=-1), "step must be at least 0, got -1"),
        (lambda: SMALL.frames(0, 0, 0, []), "indices must name at least one frame, got none"),
        (lambda: SMALL.frames(0, 0, 0, [2, -2]), "indices must be at least 0, got -2"),
        (lambda: SMALL.cameras_of(24), "pid must be from 0 to 23, got 24"),
        (lambda: WalkerWorld(num_identities=0), "num_identities must be at least 1, got 0"),
        (lambda: WalkerWorld(num_test=500), "num_test must be from 0 to 400, got 500"),
        (lambda: WalkerWorld(num_test=199), "num_identities - num_test must be a multiple of group_size=4, got 201"),
        (lambda: WalkerWorld(num_held_out_cameras=7), "num_held_out_cameras must be from 0 to 6, got 7"),
        (lambda: WalkerWorld(size=(4, 64)), r"size must be \(height, width\) of at least 8 pixels each, got \(4, 64\)"),
        (lambda: WalkerWorld(difficulty=-1.0), "difficulty must be at least 0 and finite, got -1.0"),
        (lambda: WalkerWorld(occlusion=float("nan")), "occlusion must be at least 0 and finite, got nan"),
        (lambda: WalkerWorld(alike=1.5), "alike must be a share from 0 to 1, got 1.5"),
        (lambda: WalkerWorld(frame_rate=0), "frame_rate must be positive, got 0"),
        (lambda: WalkerTracklets(SMALL, "test"), "split must be one of 'train', 'query', 'gallery', got 'test'"),
        (lambda: WalkerTracklets(SMALL, "train", num_frames=0), "num_frames must be at least 1, got 0"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_refuses_what_is_not_a_number():
    with pytest.raises(TypeError, match="pid must be an int, got float"):
        SMALL.tracklet(1.0, 0, 0)  # type: ignore[arg-type]
