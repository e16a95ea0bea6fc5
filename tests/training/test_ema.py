import copy

import pytest
import torch
from torch import nn

from nl3d.training.networks import build_network
from nl3d.training.optimizer import averaged_model
from tests.training.toys import toy_config


@pytest.mark.parametrize("decay", [0.5, 0.0])
def test_average_is_the_weighted_sum_of_what_was_seen(decay):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    average = averaged_model(model, decay)
    expected = {name: tensor.clone().double() for name, tensor in model.state_dict().items()}
    for number in range(1, 8):
        for tensor in model.state_dict().values():
            tensor.add_(1) if not tensor.is_floating_point() else tensor.normal_()
        average.update_parameters(model)
        share = min(decay, (1 + number) / (10 + number))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = share * expected[name] + (1 - share) * tensor
            else:
                expected[name] = tensor.double()
    for name, tensor in average.module.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-12, atol=1e-12)


def test_average_of_a_network_is_a_network_in_evaluation_mode():
    model = build_network(toy_config(), 5).train()
    average = averaged_model(model, 0.9)
    assert average.module.state_dict().keys() == model.state_dict().keys()
    assert average.module.pretrained_cfg == model.pretrained_cfg
    assert model.training
    clips = torch.randn(2, 3, 2, 32, 16)
    out = average.module(clips).embedding
    torch.testing.assert_close(out, copy.deepcopy(model).eval()(clips).embedding)
