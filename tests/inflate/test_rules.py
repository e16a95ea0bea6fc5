"""The table of rules: unknown types are refused by name, and others can add to it."""

import pytest
import torch
from torch import nn

from nl3d import Inflate2dTo3d
from nl3d.inflate import TimeKernel, frame_by_frame, time_first
from nl3d.inflate.rules import KNOWN


class Scale(nn.Module):
    """A leaf of the user's own."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((4, 1, 1), 2.0))

    def forward(self, x):
        return self.gamma * x


class OwnConv(nn.Conv2d):
    """A convolution that computes something of its own."""

    def forward(self, x):
        return super().forward(x) ** 2


@pytest.fixture(autouse=True)
def _table():
    before = dict(KNOWN)
    yield
    KNOWN.clear()
    KNOWN.update(before)


@pytest.mark.parametrize("kind", [Scale, OwnConv])
def test_unknown_types_are_refused_by_name(kind):
    layer = kind() if kind is Scale else kind(3, 4, 3)
    with pytest.raises(
        TypeError, match=rf"module 'body.1' has type .*{kind.__name__}, .*register\({kind.__name__}, rule\)"
    ):
        Inflate2dTo3d()(nn.ModuleDict({"body": nn.Sequential(nn.ReLU(), layer)}))


def test_frame_by_frame_lets_a_type_be():
    Inflate2dTo3d.register(Scale, frame_by_frame)
    video = Inflate2dTo3d()(nn.Sequential(nn.Conv2d(3, 4, 1), Scale()))
    assert type(video[1]) is Scale
    assert video(torch.zeros(2, 3, 3, 8, 8)).shape == (2, 4, 3, 8, 8)


def test_time_first_puts_a_temporal_convolution_before_a_type():
    Inflate2dTo3d.register(OwnConv, time_first)
    layer = OwnConv(2, 4, 3, padding=1)
    video = Inflate2dTo3d()(nn.Sequential(layer))
    x = torch.randn(2, 2, 5, 8, 8)
    mean = (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) / 3
    expected = torch.stack([layer(frame) for frame in mean.unbind(2)], 2)
    torch.testing.assert_close(video(x)[:, :, 1:-1], expected)
    assert sorted(video.state_dict()) == ["0.bias", "0.temporal.weight", "0.weight"]
    (row,) = (row for row in Inflate2dTo3d.report(video) if row.time_kernel > 1)
    assert row[1:] == ("OwnConv 3x3", "Conv3d 3x1x1, then OwnConv 3x3", 3)


def test_a_function_gives_a_twin_of_its_own():
    def rule(layer, kernel):
        assert isinstance(kernel, TimeKernel)
        twin = nn.AvgPool3d((kernel.size, 1, 1), stride=1, padding=(kernel.size // 2, 0, 0))
        twin.source = layer
        return twin

    Inflate2dTo3d.register(Scale, rule)
    video = Inflate2dTo3d(5)(nn.Sequential(Scale(), nn.ReLU()))
    x = torch.rand(1, 4, 6, 3, 3)
    torch.testing.assert_close(video(x), nn.AvgPool3d((5, 1, 1), 1, (2, 0, 0))(x))
    assert isinstance(Inflate2dTo3d()(Scale()), nn.AvgPool3d)


def test_a_rule_for_a_container_replaces_it_whole():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = OwnConv(3, 3, 3)

    Inflate2dTo3d.register(Pair, lambda layer, kernel: nn.MaxPool3d((kernel.size, 1, 1), 1))
    video = Inflate2dTo3d()(nn.Sequential(Pair(), nn.Conv2d(2, 2, 3)))
    assert video(torch.zeros(1, 2, 5, 4, 4)).shape == (1, 2, 3, 2, 2)  # the pool leaves three of five frames
    assert sorted(video.state_dict()) == ["1.bias", "1.weight"]


def test_register_refuses_what_is_no_type_or_no_rule():
    with pytest.raises(TypeError, match=r"kind must be a type of torch.nn.Module, got 'Conv2d'"):
        Inflate2dTo3d.register("Conv2d", frame_by_frame)
    with pytest.raises(TypeError, match="rule must be a function"):
        Inflate2dTo3d.register(Scale, "frame_by_frame")
