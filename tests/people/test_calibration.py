import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import nl3d
from nl3d.models.fingerprint import fingerprint
from nl3d.people.fit import calibrate
from nl3d.people.pairs import labelled_pairs
from nl3d.people.tracklets import gather_tracklets
from nl3d.retrieval.calibration import Calibration
from tests.people.sets import crowd

PLAIN = {"network": "n", "output": "embedding", "metric": "euclidean", "slope": -0.5, "intercept": 3.0}
EXAMPLE = Calibration(**PLAIN, same_above=0.9, different_below=0.2)


def test_probability_is_the_logistic_of_the_squared_distance():
    distances = torch.tensor([[0.0, 1.0], [2.0, 7.5]])
    expected = 1 / (1 + np.exp(-(3 - 0.5 * distances.double().numpy() ** 2)))
    np.testing.assert_allclose(EXAMPLE.probability(distances).numpy(), expected)
    cosine = Calibration(**PLAIN | {"metric": "cosine"}, same_above=0.9, different_below=0.2)
    np.testing.assert_allclose(
        cosine.probability(distances).numpy(), 1 / (1 + np.exp(-(3 - distances.double().numpy())))
    )
    for made in (EXAMPLE, cosine):
        assert float(made.probability(torch.tensor(made.distance(0.3)))) == pytest.approx(0.3, abs=1e-6)
    assert EXAMPLE.distance(0.9999) == 0  # above that of distance 0


def test_decides_by_the_thresholds():
    edge = EXAMPLE.distance(0.9), EXAMPLE.distance(0.2)
    distances = torch.tensor([0, edge[0] - 1e-4, edge[0] + 1e-4, edge[1] - 1e-4, edge[1] + 1e-4, 99])
    assert EXAMPLE.decide(distances) == ["same", "same", "unsure", "unsure", "different", "different"]
    assert repr(EXAMPLE) == "Calibration(euclidean, same below 1.267, different above 2.962, embedding/n)"


def test_comes_back_from_its_file_without_scikit_learn(tmp_path):
    made = Calibration(**PLAIN, same_above=0.9, different_below=0.2, about={"people": 3, "rates": [{"distance": 1.5}]})
    made.save(tmp_path / "made.json")
    assert Calibration.load(tmp_path / "made.json") == made
    with pytest.raises(FileExistsError):
        made.save(tmp_path / "made.json")
    code = "import sys, nl3d; nl3d.Calibration.load(sys.argv[1]); sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "made.json"], check=True)


def stored(**changes):
    return json.dumps({"content": "nl3d calibration", **PLAIN, "same_above": 1, "different_below": 0, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON that nl3d calibrate wrote"),
        ("[]", "not marked as one"),
        ('{"content": "nl3d calibration"}', "'slope'"),
        (stored(same_above=0.1, different_below=0.2), "thresholds"),
        (
            stored(slope=1),
            "slope",
        ),
        (
            stored(more=1),
            "more",
        ),
    ],
)
def test_refuses_what_is_no_calibration(tmp_path, text, message):
    (tmp_path / "made.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Calibration.load(tmp_path / "made.json")
    with pytest.raises(FileNotFoundError, match="nl3d calibrate writes one"):
        Calibration.load(tmp_path / "other.json")


def test_refuses_vectors_of_another_network():
    EXAMPLE.require_fits({"network": "n", "output": "embedding"}, "euclidean")
    EXAMPLE.require_fits({})
    with pytest.raises(ValueError, match="got one of embedding/n for embedding/m; nl3d calibrate makes one"):
        EXAMPLE.require_fits({"network": "m", "output": "embedding"})
    with pytest.raises(ValueError, match="metric 'cosine', got one for 'euclidean'"):
        EXAMPLE.require_fits({}, "cosine")


def test_the_bundled_one_fits_the_bundled_weights():
    made = Calibration.bundled()
    metadata = {"network": fingerprint(nl3d.resnet3d18_nl("bundled")), "output": "embedding"}
    made.require_fits(metadata)
    assert Calibration.find(metadata) == made
    assert Calibration.find(metadata | {"output": "features"}) is None
    assert made.about["equal_error_rate"] < 0.06


def test_pairs_are_two_visits():
    """By loops: never one track, never two at once, never one camera where there are several."""
    frames = torch.tensor([[1, 9], [5, 20], [30, 40], [1, 9], [50, 60], [1, 3]])
    people, cameras = ["a", "a", "a", "b", "b", "-1"], ["x", "x", "x", "x", "y", "y"]
    vectors = torch.randn(6, 3)
    one = nl3d.Embeddings(vectors, frame_ranges=frames, people=people, cameras=["x"] * 6)
    two = nl3d.Embeddings(vectors, frame_ranges=frames, people=people, cameras=cameras)

    def wanted(same_person, kept):
        found = [float((vectors[i] - vectors[j]).norm()) for i, j in kept if (people[i] == people[j]) == same_person]
        return pytest.approx(sorted(found), rel=1e-5)

    cases = {
        (one, None): [(0, 2), (1, 2), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)],
        (two, None): [(0, 4), (1, 4), (2, 4), (3, 4)],
        (two, True): [(0, 2), (1, 2), (0, 4), (1, 4), (2, 4), (2, 3), (3, 4)],
    }
    cases[one, None].remove((1, 3))  # frames 5 to 9 show both
    for (made, same_camera), kept in cases.items():
        pairs = labelled_pairs(gather_tracklets(made), same_camera=same_camera)
        assert pairs.same.tolist() == wanted(True, kept)
        assert pairs.different.tolist() == wanted(False, kept)
        assert (pairs.people, pairs.tracklets) == (2, 5)


def test_rates_are_those_of_counting():
    pairs = calibrate(crowd(12, 4, spread=0.4)).pairs
    for share in (0.3, 0.01, 0.0):
        threshold = pairs.threshold(share)
        assert np.mean(pairs.different <= threshold) <= share
        assert np.mean(pairs.different <= threshold + 1e-9) > share
        assert pairs.true_accepts(threshold) == np.mean(pairs.same <= threshold)
    rate, distance = pairs.equal_error()
    assert rate == pytest.approx(np.mean(pairs.different <= distance), abs=0.02)
    assert rate == pytest.approx(np.mean(pairs.same > distance), abs=0.02)


def test_finds_the_log_odds_of_two_known_distributions():
    """Squared distances drawn from two Gaussians of one width have linear log odds with known numbers."""
    generator = np.random.default_rng(0)
    same, different = (np.sort(np.sqrt(generator.normal(mean, 4, 40000).clip(0.01))) for mean in (20, 30))
    from nl3d.people.fit import _fit_logistic
    from nl3d.people.pairs import LabelledPairs

    slope, intercept = _fit_logistic(LabelledPairs(same, different, 1, 1), "euclidean")
    assert (slope, intercept) == (pytest.approx(-10 / 16, rel=0.03), pytest.approx(25 * 10 / 16, rel=0.03))


def test_thresholds_are_the_asked_rates():
    report = calibrate(crowd(20, 4, spread=0.8), same_at=0.01, different_at=0.1)
    made, pairs = report.calibration, report.pairs
    assert np.mean(pairs.different <= made.distance(made.same_above)) == pytest.approx(0.01, abs=0.002)
    assert np.mean(pairs.same >= made.distance(made.different_below)) == pytest.approx(0.1, abs=0.01)
    assert made.different_below < made.same_above
    easy = calibrate(crowd(20, 4, spread=0.05)).calibration
    assert easy.different_below == easy.same_above  # the two kinds do not overlap, so none is unsure


def test_command_writes_calibration_and_picture(tmp_path, capsys):
    from nl3d.cli import main

    crowd(9, 3, spread=0.3).save(tmp_path / "people.safetensors")
    arguments = ["calibrate", str(tmp_path / "people.safetensors"), "--output", str(tmp_path / "made.json")]
    assert main([*arguments, "--picture", str(tmp_path / "made.png"), "--false-accepts", "0.1", "0.02"]) == 0
    assert "27 tracklets of 9 people: 27 pairs of one person, 216 of two" in capsys.readouterr().out
    with Image.open(tmp_path / "made.png") as image:
        assert image.size[0] > 800
    made = Calibration.load(tmp_path / "made.json")
    assert [rate["false_accepts"] <= share for rate, share in zip(made.about["rates"], (0.1, 0.02), strict=True)]
    assert made.about["description"] == "people.safetensors"
    assert main(arguments) == 2  # it exists
    assert main([*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_pairs"] == 27


def test_labels_of_a_table_replace_those_of_the_file(tmp_path):
    made = crowd(4, 3, spread=0.2)
    rows = [
        f"{name},{person},{camera}" for name, person, camera in zip(made.names, made.people, made.cameras, strict=True)
    ]
    (tmp_path / "labels.csv").write_text("tracklet,pid,camid\n" + "\n".join(rows[:-1]) + "\n")
    bare = nl3d.Embeddings(made.embeddings, names=made.names)
    gathered = gather_tracklets(bare, labels=tmp_path / "labels.csv")
    assert gathered.people == (*made.people[:-1], None)
    assert gathered.cameras[:-1] == made.cameras[:-1]
    (tmp_path / "labels.csv").write_text("tracklet,pid\nstranger,1\n")
    with pytest.raises(ValueError, match="must name tracklets of the embeddings, such as 'p0 v0'; it names 'stranger'"):
        gather_tracklets(bare, labels=tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (nl3d.Embeddings(torch.eye(3)), "must have labels of people, got none"),
        (nl3d.Embeddings(torch.eye(3), people=["a", "b", "c"]), "got 0 and 3 from 3 tracklets of 3 people"),
        (nl3d.Embeddings(torch.eye(2), people=["a", "a"]), "got 1 and 0 from 2 tracklets of 1 people"),
        (
            nl3d.Embeddings(torch.eye(2), people=["a", "a"], frame_ranges=torch.tensor([[1, 9], [9, 8]])),
            "must end after it starts, but '2' has the frames 9 to 8",
        ),
        (
            nl3d.Embeddings(torch.tensor([[0.0], [9], [1], [8]]), people=["a", "a", "b", "b"]),
            "must be smaller than those of two, but are not",
        ),
    ],
)
def test_refuses_labels_that_cannot_be_fitted(made, message):
    with pytest.raises(ValueError, match=message):
        calibrate(made)
