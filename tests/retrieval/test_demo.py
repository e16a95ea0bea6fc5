import pytest
from PIL import Image

from nl3d.cli import main
from nl3d.retrieval import demo


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for name, value in (("NUM_FRAMES", 2), ("SIZE", (32, 16)), ("NUM_PEOPLE", 8)):
        monkeypatch.setattr(demo, name, value)


def test_scores_a_network_and_a_histogram_on_the_same_walkers():
    first = demo.run_demo(num_people=8)
    assert len(first.tracklets) == 8 * 3
    assert len(first.ranking) == 8
    assert list(first.scores) == ["bundled network", "untrained network", "colour histogram, six stripes"]
    for score in first.scores.values():
        assert score.num_valid_queries == 24
    second = demo.run_demo(num_people=8)
    assert first.scores == second.scores  # nothing is drawn anew


def test_the_command_prints_scores_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run_demo", lambda run=demo.run_demo: run(num_people=8))
    assert main(["demo"]) == 0
    told = capsys.readouterr().out
    assert "24 tracklets of 8 people under 6 cameras" in told
    assert "rank-1" in told
    assert [line.split("  ")[0] for line in told.splitlines()[3:6]] == [
        "bundled network", "untrained network", "colour histogram, six stripes",
    ]  # fmt: skip
    with Image.open("nl3d-demo.png") as picture:
        assert picture.width > picture.height / 2
    assert main(["demo"]) == 0  # its own picture may be made anew
    assert main(["demo", "--picture", str(tmp_path / "nl3d-demo.png")]) == 2
