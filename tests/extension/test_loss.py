"""A loss of one's own, handed to the trainer."""

import json
from typing import NamedTuple

import pytest
import torch
from torch import nn

from nl3d.training.checkpoint import read_checkpoint
from nl3d.training.run import run_training
from tests.training.toys import toy_config


class Terms(NamedTuple):
    total: torch.Tensor
    center: torch.Tensor


class CenterLoss(nn.Module):
    """Squared distance of each embedding to a learned centre of its person."""

    def __init__(self, num_classes, width):
        super().__init__()
        self.centers = nn.Parameter(torch.ones(num_classes, width))

    def forward(self, output, pids):
        return nn.functional.cross_entropy(output.logits, pids) + self.distance(output, pids)

    def distance(self, output, pids):
        return (output.embedding - self.centers[pids]).square().mean()


class CenterLossWithParts(CenterLoss):
    def parts(self, output, pids):
        center = self.distance(output, pids)
        return Terms(self(output, pids), center)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_loss_is_trained_logged_saved_and_resumed(tmp_path, accumulate):
    config = toy_config(epochs=2, accumulate=accumulate)
    run_training(config, tmp_path / "run", criterion=CenterLossWithParts(8, 8), board=False)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert 0 < history[1]["center_loss"] < history[1]["loss"]
    assert "triplet_loss" not in history[1]
    tensors, _ = read_checkpoint(tmp_path / "run" / "last.safetensors")
    assert not torch.equal(tensors["criterion.centers"], torch.ones(8, 8))

    run_training(config, tmp_path / "plain", criterion=CenterLoss(8, 8), board=False)
    plain, _ = read_checkpoint(tmp_path / "plain" / "last.safetensors")
    assert torch.equal(plain["criterion.centers"], tensors["criterion.centers"])  # the terms are only for the log
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(
        ValueError, match=r"resume with the criterion it began with, CenterLossWithParts\(\), got ReIDLoss"
    ):
        run_training(config, tmp_path / "run", board=False)
    assert run_training(config, tmp_path / "run", criterion=CenterLossWithParts(8, 8), board=False)["step"] == 4
