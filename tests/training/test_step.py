"""Micro-batches against the undivided batch; dropout and norms made such that the two can be equal."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from nl3d.losses import ReIDLoss
from nl3d.training.networks import build_network
from nl3d.training.step import NotFiniteError, backward
from tests.oracles import randomise
from tests.training.toys import toy_config


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = build_network(toy_config(dropout=0.0), 4).double().train()
    randomise(model)  # leaves the zero start of the non-local blocks
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # a norm over the batch sees another batch in parts
    return model


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(8, 3, 2, 32, 16, generator=generator, dtype=torch.float64)
    return clips, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


def parts(batch, sizes):
    return list(zip(*(tensor.split(sizes) for tensor in batch), strict=True))


def gradients(network, batches, mining):
    model = copy.deepcopy(network)
    losses = backward(Accelerator(cpu=True), model, ReIDLoss(), batches, mining=mining)
    return losses, [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("sizes", [(4, 4), (2, 2, 2, 2), (2, 4, 2), (3, 5)], ids=str)
def test_mining_in_the_batch_gives_the_undivided_batch_s_gradient(network, batch, sizes):
    losses, expected = gradients(network, [batch], "batch")
    assert losses["triplet"] > 0
    other, found = gradients(network, parts(batch, sizes), "batch")
    torch.testing.assert_close(other, losses, rtol=1e-6, atol=0)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_mining_in_micro_batches_gives_the_mean_of_theirs(network, batch):
    halves = parts(batch, (4, 4))
    losses, found = gradients(network, halves, "micro")
    alone = [gradients(network, [half], "micro") for half in halves]
    for name, value in losses.items():
        torch.testing.assert_close(value, (alone[0][0][name] + alone[1][0][name]) / 2)
    for gradient, one, two in zip(found, alone[0][1], alone[1][1], strict=True):
        torch.testing.assert_close(gradient, (one + two) / 2, rtol=1e-9, atol=1e-12)
    assert (
        losses["triplet"] < gradients(network, halves, "batch")[0]["triplet"]
    )  # the hardest negative was in the other half


def test_both_passes_draw_the_same_dropout_and_count_statistics_once(batch):
    torch.manual_seed(0)
    model = build_network(toy_config(dropout=0.5), 4).double().train()
    halves = parts(batch, (4, 4))
    seen = []
    model.head.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    torch.manual_seed(3)
    backward(Accelerator(cpu=True), model, ReIDLoss(), halves, mining="batch")
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0] == 0, seen[1] == 0)
    assert model.bn1.num_batches_tracked == 2
    after = torch.rand(1)
    torch.manual_seed(3)
    with torch.no_grad():
        model(halves[0][0]), model(halves[1][0])
    assert torch.equal(after, torch.rand(1))  # and the next step does not draw them again


@pytest.mark.parametrize("mining", ["batch", "micro"])
def test_output_too_large_to_square_is_an_error_and_no_nan(network, batch, mining):
    with torch.no_grad():
        network.layer4[1].bn2.weight.fill_(1e200)
    with pytest.raises(NotFiniteError, match="embeddings must have finite squares, got values up to"):
        gradients(network, parts(batch, (4, 4)), mining)


@pytest.mark.parametrize("mining", ["batch", "micro"])
def test_output_that_is_not_finite_is_an_error_of_its_own(network, batch, mining):
    with torch.no_grad():
        network.layer4[0].bn1.weight[0] = torch.nan
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        gradients(network, parts(batch, (4, 4)), mining)


def test_other_refusals_of_the_loss_stay_what_they_are(network, batch):
    with pytest.raises(ValueError, match="pids must be classes"):
        gradients(network, [(batch[0], batch[1] + 1)], "batch")
