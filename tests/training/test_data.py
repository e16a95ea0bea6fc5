"""Data sets by name, batches of ranks and micro-batches, and the evaluation against a slow one."""

import dataclasses

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torchvision.transforms.v2.functional import resize

from nl3d.data.clips.sampling import consecutive_clips
from nl3d.data.dataset import ReIDDataset
from nl3d.data.tracklets import Tracklet
from nl3d.layers.head import ReIDOutput
from nl3d.metrics import evaluate
from nl3d.training.batches import TrainBatches
from nl3d.training.data import read_dataset
from nl3d.training.evaluation import Evaluation
from nl3d.walkers import WalkerWorld
from nl3d.walkers.dataset import read_walkers
from tests.training.toys import WALKERS, toy_config

CFG = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}


class Means(nn.Module):
    """Embeds a clip as the mean colour of its first and of its last frame."""

    pretrained_cfg = CFG
    embedding_dim = 6

    def forward(self, clips):
        ends = torch.cat([clips[:, :, 0].mean((2, 3)), clips[:, :, -1].mean((2, 3))], dim=1)
        return ReIDOutput(ends, ends, None)


class Rank:
    """As much of an accelerator as batches and a lone evaluation ask for."""

    device = torch.device("cpu")
    mixed_precision = "no"

    def __init__(self, process_index, num_processes):
        self.process_index, self.num_processes = process_index, num_processes


@pytest.fixture(scope="module")
def walkers():
    return read_dataset(toy_config())


def test_walkers_are_a_small_mars(walkers):
    counts = walkers.counts()
    assert counts["train"] == (8 * 2 * 2, 8, 8 * 2 * 2 * 24)
    assert counts["gallery"] == (4 * 2 * 2, 4, 4 * 2 * 2 * 12)
    assert counts["query"] == (4 * 2, 4, 4 * 2 * 12)
    assert set(walkers.query) <= set(walkers.gallery)
    assert walkers.queries_without_match() == []
    assert {tracklet.pid for tracklet in walkers.train} == set(range(8))
    assert walkers.protocol == "walkers, num_identities=12, num_test=4, cameras_per_identity=2, size=(32, 16)"


def test_walkers_frames_are_those_of_the_generator(walkers):
    tracklet = walkers.train[5]
    world = WalkerWorld(num_identities=12, num_test=4, cameras_per_identity=2, size=(32, 16))
    expected = world.tracklet(*map(int, tracklet.name.split("/")), num_frames=24)
    for index in (0, 7, 23, -1):
        assert torch.equal(tracklet.read(index), expected[index])
    assert torch.equal(torch.stack(tracklet.frames[2:9:3]), expected[2:9:3])
    together = torch.stack(tracklet.read_all([9, 3, -1])).int()
    assert (together - expected[[9, 3, 23]].int()).abs().max() <= 1  # sines round otherwise in other company
    assert tracklet.read_all([]) == []
    with pytest.raises(IndexError, match="index must be below 24, got 24"):
        tracklet.read(24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "market"}, r"dataset must be one of walkers, mars, .*, got 'market'"),
        ({"dataset": "mars"}, "root must be given for mars"),
        ({"split": 1}, "split must be 0 for walkers, which has one, got 1"),
        ({"num_pids": 10}, "num_pids must be at most the 8 people of walkers to train on, got 10"),
        ({"data_args": {**WALKERS, "num_frames": 0}}, "num_frames must be at least 1, got 0"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        read_dataset(toy_config(**changes))


def test_unknown_arguments_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data_args must be arguments of walkers, got \{'speed': 1\} \(.*speed"):
        read_dataset(toy_config(data_args={"speed": 1}))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_dataset(toy_config(dataset="mars", root=str(tmp_path / "nowhere"), data_args={}))


def epochs_of(batches, epochs=(0, 1)):
    return [[parts for parts, _ in batches.epoch(epoch)] for epoch in epochs]


def test_ranks_and_micro_batches_share_one_batch(walkers):
    network = Means()
    whole = epochs_of(TrainBatches(walkers, toy_config(), Rank(0, 1), network))
    parted = epochs_of(TrainBatches(walkers, toy_config(accumulate=2), Rank(0, 1), network))
    ranks = [epochs_of(TrainBatches(walkers, toy_config(), Rank(rank, 2), network)) for rank in (0, 1)]
    for epoch in (0, 1):
        assert len(whole[epoch]) == 2
        for step in (0, 1):
            ((clips, pids),) = whole[epoch][step]
            assert clips.shape == (8, 3, 2, 32, 16)
            assert pids.bincount(minlength=8).tolist().count(2) == 4
            for other in (parted[epoch][step], [ranks[0][epoch][step][0], ranks[1][epoch][step][0]]):
                assert torch.equal(torch.cat([part[0] for part in other]), clips)
                assert torch.equal(torch.cat([part[1] for part in other]), pids)
                assert [len(part[1]) for part in other] == [4, 4]
    assert not torch.equal(whole[0][0][0][0], whole[1][0][0][0])


def test_batches_go_on_in_the_middle_of_an_epoch(walkers):
    network = Means()
    whole = epochs_of(TrainBatches(walkers, toy_config(), Rank(0, 1), network))
    state = TrainBatches(walkers, toy_config(), Rank(0, 1), network).state_dict(1, 1)
    other = TrainBatches(walkers, toy_config(num_workers=1), Rank(0, 1), network)
    other.load_state_dict(state)
    (rest,) = [parts for parts, _ in other.epoch(1)]
    assert torch.equal(rest[0][0], whole[1][1][0][0])


def test_each_batch_has_one_of_the_sizes(walkers):
    config = toy_config(sizes="32x16,24x12, 16x8", num_pids=2)
    whole = epochs_of(TrainBatches(walkers, config, Rank(0, 1), Means()))
    shapes = [tuple(clips.shape[3:]) for epoch in whole for ((clips, _),) in epoch]
    assert len(shapes) == 8
    assert set(shapes) == {(32, 16), (24, 12), (16, 8)}
    plain = epochs_of(TrainBatches(walkers, toy_config(num_pids=2), Rank(0, 1), Means()))
    largest = [place for place, shape in enumerate(shapes[:4]) if shape == (32, 16)]
    assert all(torch.equal(whole[0][place][0][0], plain[0][place][0][0]) for place in largest)
    rest = TrainBatches(walkers, dataclasses.replace(config, num_workers=1), Rank(0, 1), Means())
    rest.load_state_dict(rest.state_dict(1, 2))
    assert [tuple(parts[0][0].shape[3:]) for parts, _ in rest.epoch(1)] == shapes[6:]
    with pytest.raises(ValueError, match="sizes must be HxW separated by commas, such as '64x32,96x48', got '64'"):
        toy_config(sizes="64")


def test_uneven_shares_are_refused(walkers):
    with pytest.raises(ValueError, match="num_pids must be a multiple of processes times accumulate = 3 x 2, got 4"):
        TrainBatches(walkers, toy_config(accumulate=2), Rank(0, 3), Means())


def test_clips_are_normalised_as_the_network_says(walkers):
    config = toy_config(flip=0.0, enlarge=1.0, sampling="evenly", num_pids=8)
    batches = TrainBatches(walkers, config, Rank(0, 1), Means())
    (((clips, _),),) = [parts for parts, _ in batches.epoch(0)]
    mean, std = (torch.tensor(CFG[name]).view(3, 1, 1, 1) for name in ("mean", "std"))
    pixels = (clips * std + mean) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)
    assert 0 <= pixels.min() < pixels.max() <= 255.001


def slow_scores(dataset, config):
    """Embed each tracklet by itself, rank by NumPy."""

    def embed(tracklet):
        network, rows = Means(), []
        for plan in consecutive_clips(len(tracklet), config.num_frames, config.frame_step):
            frames = [resize(tracklet.read(index), [config.height, config.width], antialias=True) for index in plan]
            mean, std = (torch.tensor(CFG[name]).view(1, 3, 1, 1, 1) for name in ("mean", "std"))
            rows.append(network((torch.stack(frames, 1)[None] / 255 - mean) / std).embedding[0])
        return torch.stack(rows).double().mean(0).numpy()

    query, gallery = (np.stack([embed(t) for t in part]) for part in (dataset.query, dataset.gallery))
    labels = [
        [getattr(t, name) for t in part] for name in ("pid", "camid") for part in (dataset.query, dataset.gallery)
    ]
    return evaluate(query, gallery, *labels, **dataset.evaluate_options())


def tracklets(pids, camids, generator, lengths=(5, 9, 13)):
    return [
        Tracklet(
            torch.randint(256, (lengths[place % 3], 3, 20, 12), dtype=torch.uint8, generator=generator),
            pid=pid,
            camid=camid,
            name=f"{pid}-{camid}",
        )
        for place, (pid, camid) in enumerate(zip(pids, camids, strict=True))
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_equals_a_slow_one(workers):
    people = tracklets([1, 1, 2, 2, 3, 3, -1, 0], [0, 1, 0, 1, 0, 1, 1, 1], torch.Generator().manual_seed(0))
    official = ReIDDataset(
        name="toy", query=people[:6:2], gallery=people, junk_pids=(-1,), distractor_pids=(0,), ap="trapezoid"
    )
    config = toy_config(num_workers=workers, eval_batch=3)
    found = Evaluation(official, config, Accelerator())(Means().eval())
    expected = slow_scores(official, config)
    assert found["mAP"] == pytest.approx(expected.mAP, abs=1e-9)
    assert found["cmc"]["1"] == expected.cmc[1]
    assert (found["num_gallery"], found["num_valid_queries"], found["ap"]) == (7, 3, "trapezoid")
    plain = Evaluation(official, dataclasses.replace(config, ap="interpolated"), Accelerator())(Means().eval())
    assert plain["mAP"] >= found["mAP"]
    assert plain["ap"] == "interpolated"


def test_unreadable_frames_stop_with_a_name_or_are_counted(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    people = tracklets([0, 0, 1, 1], [0, 1, 0, 1], torch.Generator().manual_seed(0))
    frames = [people[0].read(0), broken, people[0].read(2), people[0].read(3)]
    people[0] = dataclasses.replace(people[0], frames=frames)
    dataset = ReIDDataset(name="toy", train=people, query=people[:1], gallery=people, train_labels=(0, 1))
    config = toy_config(num_pids=2, frame_step=1, num_frames=4)
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        list(TrainBatches(dataset, config, Rank(0, 1), Means()).epoch(0))
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        Evaluation(dataset, config, Accelerator())(Means().eval())
    skipping = dataclasses.replace(config, skip_unreadable=True)
    ((_, unreadable),) = TrainBatches(dataset, skipping, Rank(0, 1), Means()).epoch(0)
    assert unreadable == 1
    assert Evaluation(dataset, skipping, Accelerator())(Means().eval())["unreadable_test_frames"] == 1


def test_data_set_without_queries_is_refused():
    people = tracklets([0, 1], [0, 0], torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="must have query and gallery to be evaluated on, but toy lacks one"):
        Evaluation(ReIDDataset(name="toy", train=people, train_labels=(0, 1)), toy_config(), Accelerator())


def test_walkers_rendered_once_are_the_same(walkers, tmp_path):
    stored = read_dataset(toy_config(root=str(tmp_path)))
    assert [(t.pid, t.camid, t.name) for t in stored.train] == [(t.pid, t.camid, t.name) for t in walkers.train]
    for part in ("train", "gallery"):
        for one, other in zip(getattr(stored, part)[::5], getattr(walkers, part)[::5], strict=True):
            assert len(one) == len(other)
            assert torch.equal(torch.stack(one.read_all()), torch.stack(other.read_all()))
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2
    read_dataset(toy_config(root=str(tmp_path)))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    read_dataset(toy_config(root=str(tmp_path), data_args={**WALKERS, "difficulty": 0.5}))
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(IndexError, match="index must be below 24, got 24"):
        stored.train[0].read(24)


def test_read_walkers_refuses():
    with pytest.raises(ValueError, match="tracklets_per_camera must be at least 1, got 0"):
        read_walkers(size=(32, 16), tracklets_per_camera=0)
