import pytest
import torch
from torch import nn

from nl3d import SeparableConv3d
from tests import oracles


@pytest.mark.parametrize("time_padding", ["zeros", "replicate"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups"),
    [
        (3, 1, 1, 1),
        ((3, 5, 3), (1, 2, 1), 1, 1),
        ((5, 3, 1), (2, 1, 3), 1, 2),
        (3, (2, 2, 2), (2, 1, 2), 2),
        ((1, 3, 3), 1, 1, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("num_frames", [1, 4])
def test_equals_the_full_kernel_it_factorises(num_frames, kernel, stride, dilation, groups, time_padding):
    layer = SeparableConv3d(
        4, 6, kernel_size=kernel, stride=stride, dilation=dilation, groups=groups, bias=True, time_padding=time_padding
    ).double()
    oracles.randomise(layer)
    temporal, spatial = layer.temporal, layer.spatial
    per_group = temporal.in_channels // groups
    dense = torch.zeros(4, 4, temporal.kernel_size[0], dtype=torch.float64)  # groups spelled out as zeros
    for out in range(4):
        start = out // per_group * per_group
        dense[out, start : start + per_group] = temporal.weight[out, :, :, 0, 0]
    full = torch.zeros(6, 4, temporal.kernel_size[0], *spatial.kernel_size[1:], dtype=torch.float64)
    for out in range(6):
        start = out // (6 // groups) * per_group
        full[out] = torch.einsum("mhw,mit->ithw", spatial.weight[out, :, 0], dense[start : start + per_group])
    clips = torch.randn(2, 4, num_frames, 7, 6, dtype=torch.float64)
    st, sh, sw = temporal.stride[0], *spatial.stride[1:]
    dt, dh, dw = temporal.dilation[0], *spatial.dilation[1:]
    pt, ph, pw = temporal.padding[0], *spatial.padding[1:]
    expected = oracles.conv3d(
        clips, full, spatial.bias, (st, sh, sw), (pt, ph, pw), (dt, dh, dw), pad_time=time_padding
    )
    torch.testing.assert_close(layer(clips), expected)


@pytest.mark.parametrize("time_padding", ["zeros", "replicate"])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2), groups=2, bias=False),
        nn.Conv2d(4, 4, 4, stride=4, groups=4),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2),
    ],
    ids=str,
)
def test_from_conv2d_is_the_inflated_kernel_borders_included(conv, time_padding):
    conv = conv.double()
    layer = SeparableConv3d.from_conv2d(conv, time_kernel=3, time_stride=2, time_padding=time_padding)
    clips = torch.randn(1, conv.in_channels, 5, 9, 8, dtype=torch.float64)
    inflated = conv.weight.unsqueeze(2).repeat(1, 1, 3, 1, 1) / 3
    padding = (1, *layer.spatial.padding[1:])
    expected = oracles.conv3d(
        clips,
        inflated,
        conv.bias,
        (2, *conv.stride),
        padding,
        (1, *conv.dilation),
        conv.groups,
        pad_time=time_padding,
    )
    torch.testing.assert_close(layer(clips), expected)
    assert layer.spatial.weight.data_ptr() != conv.weight.data_ptr()


def test_fresh_layer_sees_only_the_middle_frame():
    layer = SeparableConv3d(3, 4)
    clips = torch.randn(1, 3, 5, 8, 8)
    torch.testing.assert_close(layer(clips)[:, :, 2:3], layer.spatial(clips[:, :, 2:3]))


def test_gradcheck():
    layer = oracles.randomise(SeparableConv3d(2, 2, time_padding="replicate").double())
    assert torch.autograd.gradcheck(layer, torch.randn(1, 2, 3, 3, 3, dtype=torch.float64, requires_grad=True))


def test_parameter_names():
    assert list(SeparableConv3d(2, 3, bias=True).state_dict()) == ["temporal.weight", "spatial.weight", "spatial.bias"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kernel_size": 4}, r"kernel_size must be odd on every axis.*\(4, 4, 4\)"),
        ({"kernel_size": (3, 3)}, r"kernel_size must be an int or \(t, h, w\)"),
        ({"stride": (1, 0, 1)}, "stride must be an int"),
        ({"groups": 3}, "groups must divide"),
        ({"time_padding": "reflect"}, "time_padding must be one of 'zeros', 'replicate', got 'reflect'"),
    ],
)
def test_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SeparableConv3d(4, 4, **kwargs)


def test_from_conv2d_refuses():
    with pytest.raises(ValueError, match="time_kernel must be odd, got 2"):
        SeparableConv3d.from_conv2d(nn.Conv2d(2, 2, 3), time_kernel=2)
    with pytest.raises(ValueError, match="padding_mode='circular'"):
        SeparableConv3d.from_conv2d(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"))
    with pytest.raises(ValueError, match="'same' must be symmetric"):
        SeparableConv3d.from_conv2d(nn.Conv2d(2, 2, 2, padding="same"))
