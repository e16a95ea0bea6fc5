"""A reader of another package: its data set is trained on, from Python and from the command line."""

import pytest
import torch

import nl3d.cli
from nl3d.data import ReIDDataset, Tracklet, register_reader
from nl3d.data.readers import registry


def read_stripes(root, *, people=4):
    """Stripes of one colour per person, two tracklets under each of two cameras; no file is read."""
    generator = torch.Generator().manual_seed(len(root))
    tracklets = []
    for pid in range(2 * people):
        colour = torch.randint(256, (3, 1, 1), generator=generator)
        for camid in (0, 1, 0, 1):
            noise = torch.randint(-20, 20, (4, 3, 40, 20), generator=generator)
            frames = (colour + noise).clamp(0, 255).to(torch.uint8)
            tracklets.append(Tracklet(list(frames), pid % people, camid, name=f"{pid}-{camid}"))
    train, test = tracklets[: 4 * people], tracklets[4 * people :]
    labels = tuple(str(pid) for pid in range(people))
    return ReIDDataset(name="stripes", train=train, query=test[::4], gallery=test, train_labels=labels)


@pytest.fixture
def _registered():
    register_reader("stripes", read_stripes)
    yield
    del registry.READERS["stripes"]


@pytest.mark.usefixtures("_registered")
def test_registered_reader_is_trained_on(tmp_path, capsys):
    options = ["--dataset=stripes", "--root=anywhere", '--data-args={"people": 3}', "--num-pids=3", "--num-tracklets=2"]
    small = ["--model=small_3d", '--model-args={"base_width": 4}', "--height=32", "--width=16", "--num-frames=2"]
    run = ["--epochs=1", "--num-workers=0", "--no-board", f"--output={tmp_path}"]
    assert nl3d.cli.main(["train", *options, *small, *run]) == 0
    assert "stripes: rank-1" in capsys.readouterr().out
    assert (
        nl3d.cli.main(["train", *options, *small, "--data-args={}", "--num-pids=5", f"--output={tmp_path / 'x'}"]) == 2
    )
    assert "num_pids must be at most the 4 people of stripes to train on, got 5" in capsys.readouterr().err
