"""Tracklets become people: the linkage, what may not be joined, the chosen cut, and the files."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch

import nl3d
from nl3d.cli import main
from nl3d.people import identities
from nl3d.people.clustering import cluster
from nl3d.people.constraints import make_constraints
from nl3d.people.cut import Cut
from nl3d.people.tracklets import gather_tracklets
from nl3d.retrieval.calibration import Calibration
from tests import bench_people
from tests.people.sets import crowd

VIDEO = {"network": "abc", "output": "embedding", "source": "a.mp4", "tracks": "a.txt"}


def slow_cluster(vectors, forbidden, cut):
    """Join the nearest allowed pair of all, one after another, from the matrix of distances."""
    groups = [[row] for row in range(len(vectors))]
    squared = np.square(vectors[:, None] - vectors[None]).sum(2)

    def linkage(one, other):
        mean = squared[np.ix_(one, other)].mean()
        return mean * np.sqrt(2 * len(one) * len(other) / (len(one) + len(other)))

    while True:
        pairs = [
            (linkage(one, other), i, j)
            for (i, one), (j, other) in itertools.combinations(enumerate(groups), 2)
            if not forbidden[np.ix_(one, other)].any()
        ]
        if not pairs or min(pairs)[0] > cut**2:
            break
        _, i, j = min(pairs)
        groups[i] += groups.pop(j)
    labels = np.empty(len(vectors), dtype=int)
    for number, group in enumerate(sorted(groups, key=min)):
        labels[group] = number
    return labels


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_those_of_the_nearest_pair_after_another(seed):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(30, 3)) + 100
    starts = generator.integers(1, 100, size=30)
    ranges = torch.tensor(np.stack([starts, starts + generator.integers(5, 40, size=30)], axis=1))
    embeddings = nl3d.Embeddings(torch.tensor(vectors), frame_ranges=ranges, metadata=VIDEO)
    constraints = make_constraints(gather_tracklets(embeddings))
    rows = np.arange(30)
    forbidden = constraints.forbidden(rows[:, None], rows[None])
    at_once = (ranges[:, None, 0] <= ranges[None, :, 1]) & (ranges[None, :, 0] <= ranges[:, None, 1])
    assert np.array_equal(forbidden, at_once.numpy() & ~np.eye(30, dtype=bool))
    for cut in (0.5, 1.5, 4.0):
        found = cluster(embeddings.embeddings, constraints, cut).labels()
        assert np.array_equal(found, slow_cluster(vectors, forbidden, cut))


def same_pairs(labels):
    labels = np.asarray(labels)
    return labels[:, None] == labels[None]


def test_people_are_found_without_labels():
    people = crowd(30, 4, spread=0.15, width=32)
    found = nl3d.identify(people)
    assert np.array_equal(same_pairs([one.person for one in found]), same_pairs(people.people))
    assert repr(found) == "Identities(120 tracklets under 4 cameras: 30 people, 30 of them seen more than once)"
    assert all(0 <= one.confidence <= 1 for one in found)


def test_many_people_far_apart_are_found_too():
    people = crowd(300, 4, spread=0.35, width=256)  # so many that a pair is of one person in one of 400
    found = nl3d.identify(people)
    assert np.array_equal(same_pairs([one.person for one in found]), same_pairs(people.people))


def test_a_thousand_strangers_stay_apart():
    generator = torch.Generator().manual_seed(0)
    found = nl3d.identify(nl3d.Embeddings(torch.randn(1000, 64, generator=generator)))
    assert len(found.people) > 970


def test_a_cut_of_nothing_is_said(monkeypatch):
    cut = Cut(0.0, Calibration.bundled(), 1e-6, 0.0)
    monkeypatch.setattr(identities, "choose_cut", lambda *_: cut)
    found = nl3d.identify(nl3d.Embeddings(torch.eye(3)))
    assert len(found.people) == 3
    assert "the network cannot tell so many people apart" in found.notes[-1]
    assert "cannot tell" not in " ".join(nl3d.identify(nl3d.Embeddings(torch.eye(3)), cut=0.5).notes)


def test_tracks_seen_at_once_are_never_joined():
    vectors = torch.zeros(3, 4) + torch.tensor([[0.0], [0.0], [0.0]])
    ranges = torch.tensor([[1, 10], [5, 20], [30, 40]])
    found = nl3d.identify(nl3d.Embeddings(vectors, frame_ranges=ranges, metadata=VIDEO), cut=1)
    persons = [one.person for one in found]
    assert persons[0] != persons[1]
    assert len({*persons}) == 2


def test_known_people_give_their_names():
    asked = nl3d.Embeddings(torch.tensor([[0.0, 0], [9, 9], [0, 9]]), metadata={"network": "abc"})
    known = nl3d.Embeddings(
        torch.tensor([[0.1, 0], [9, 9.1]]), people=("ann", "bob"), names=("x", "y"), metadata={"network": "abc"}
    )
    found = nl3d.identify(asked, known=known, cut=1)
    assert [one.person for one in found] == ["ann", "bob", "person 1"]
    unlabelled = nl3d.Embeddings(torch.eye(2), metadata={"network": "abc"})
    with pytest.raises(ValueError, match="known must have labels of people"):
        nl3d.identify(asked, known=unlabelled)


def test_travel_times_rule_out_pairs(tmp_path):
    table = tmp_path / "times.csv"
    table.write_text("camera_a,camera_b,min_seconds,max_seconds\nx,y,10,60\n")
    ranges = torch.tensor([[1, 25], [51, 75], [1001, 1025]])
    embeddings = nl3d.Embeddings(
        torch.zeros(3, 2), frame_ranges=ranges, cameras=("x", "y", "y"), metadata=VIDEO, names=("a", "b", "c")
    )
    times = nl3d.read_travel_times(table, frame_rate=25)
    persons = [one.person for one in nl3d.identify(embeddings, travel_times=times, cut=1)]
    assert persons[0] != persons[1]  # one second later under the other camera
    assert persons[0] == persons[2] or persons[1] == persons[2]
    table.write_text("camera_a,camera_b,min_seconds\nx,z,10\n")
    with pytest.raises(ValueError, match="must name cameras of the tracklets, which are 'x', 'y'; got 'z'"):
        nl3d.identify(embeddings, travel_times=nl3d.read_travel_times(table, frame_rate=25))


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (lambda: [], "must hold at least one tracklet"),
        (lambda: [nl3d.Embeddings(torch.zeros(1, 2), metadata={"network": n}) for n in "ab"], "same network"),
        (lambda: [nl3d.Embeddings(torch.zeros(1, w)) for w in (2, 3)], "must be of one width"),
        (
            lambda: nl3d.Embeddings(torch.zeros(1, 2), frame_ranges=torch.tensor([[9, 3]]), metadata=VIDEO),
            "must end after it starts, but '1' has the frames 9 to 3",
        ),
    ],
)
def test_refusals(sets, sentence):
    with pytest.raises(ValueError, match=sentence):
        nl3d.identify(sets())


def test_command_writes_tables(tmp_path, capsys):
    people = crowd(6, 3, spread=0.1, width=32)
    people.save(tmp_path / "a.safetensors")
    for suffix in ("csv", "json"):
        assert main(["identify", str(tmp_path / "a.safetensors"), "--output", str(tmp_path / f"out.{suffix}")]) == 0
    assert "18 tracklets under 3 cameras: 6 people" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert list(rows[0]) == ["tracklet", "camera", "first", "last", "person", "confidence"]
    assert [row["tracklet"] for row in rows] == list(people.names)
    assert np.array_equal(same_pairs([row["person"] for row in rows]), same_pairs(people.people))
    told = json.loads((tmp_path / "out.json").read_text())
    assert [one["person"] for one in told["tracklets"]] == [row["person"] for row in rows]
    assert main(["identify", str(tmp_path / "a.safetensors"), "--output", str(tmp_path / "a.safetensors")]) == 2
    assert main(["identify", str(tmp_path / "a.safetensors"), "--output", str(tmp_path / "b.txt")]) == 2
    assert "must end in .csv, .json" in capsys.readouterr().err


def test_distances_scale_with_the_footage():
    bundled = Calibration.bundled()
    doubled = bundled.scaled_to(2 * bundled.different_median)
    distances = torch.linspace(0, 40, 9)
    torch.testing.assert_close(doubled.log_odds(2 * distances), bundled.log_odds(distances))


def test_the_benchmark_runs(capsys):
    assert bench_people.main(200) == 1
    assert "200 tracklets, 20 people" in capsys.readouterr().out
    assert bench_people.pairwise_f1([0, 0, 1], ("p0", "p1", "p1")) == 0
    assert bench_people.pairwise_f1([0, 0, 0], ("p0", "p1", "p1")) == pytest.approx(2 * 1 / (3 + 1))
