import pytest
import torch
from torch import nn

from nl3d.training.ema import AveragedWeights


def test_average_is_the_weighted_sum_of_what_was_seen():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    average = AveragedWeights(model, decay=0.5)
    expected = {name: tensor.clone().double() for name, tensor in model.state_dict().items()}
    for number in range(1, 8):
        for tensor in model.state_dict().values():
            tensor.add_(1) if not tensor.is_floating_point() else tensor.normal_()
        average.update()
        decay = min(0.5, (1 + number) / (10 + number))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
            else:
                expected[name] = tensor.double()
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-12, atol=1e-12)


def test_applied_puts_the_weights_back_after_an_error():
    model = nn.Linear(1, 1)
    average = AveragedWeights(model, decay=0.9)
    kept = average.tensors["weight"].clone()
    nn.init.constant_(model.weight, 7)

    def fail_inside():
        with average.applied():
            assert torch.equal(model.weight, kept)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert model.weight.item() == 7


def test_refuses():
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1, got 1"):
        AveragedWeights(nn.Linear(1, 1), decay=1)
