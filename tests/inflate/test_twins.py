"""Single layers: the 3D twin against loops over frames in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nl3d import Inflate2dTo3d, SeparableConv3d
from nl3d.inflate.kernels import inflate_kernel

CONVS = {
    "plain": dict(kernel_size=3, padding=1),
    "strided": dict(kernel_size=3, padding=1, stride=(2, 1)),
    "grouped": dict(kernel_size=3, padding=1, groups=2, bias=False),
    "depthwise": dict(kernel_size=(5, 3), padding=(2, 1), groups=4),
    "dilated": dict(kernel_size=3, padding=(2, 4), dilation=(2, 4)),
    "rectangular": dict(kernel_size=(1, 7), padding=(0, 3), stride=(1, 2)),
    "even": dict(kernel_size=4, padding=1, stride=2),
    "same": dict(kernel_size=3, padding="same"),
    "valid": dict(kernel_size=3, padding="valid"),
    "point": dict(kernel_size=1),
}


def conv(name, **options):
    layer = nn.Conv2d(4, 6 if name != "depthwise" else 8, **CONVS[name], **options)
    return layer.double()


def inflated_by_loops(layer, clips, taps, *, stride, padding):
    """Frame by frame: each output frame is a sum of 2D responses, weighted by the taps."""
    half, length = len(taps) // 2, clips.shape[2]
    bias = None if layer.bias is None else layer.bias[None, :, None, None]
    frames = []
    for centre in range(0, length, stride):
        total = 0
        for tap, share in enumerate(taps):
            moment = centre + tap - half
            if padding == "replicate":
                moment = min(max(moment, 0), length - 1)
            if 0 <= moment < length:
                response = layer(clips[:, :, moment])
                total = total + share * (response if bias is None else response - bias)
        frames.append(total if bias is None else total + bias)
    return torch.stack(frames, 2)


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("separable", [False, True], ids=["full", "separable"])
@pytest.mark.parametrize("name", CONVS)
def test_conv_is_the_mean_of_neighbouring_responses(name, separable, padding):
    layer = conv(name)
    where = (lambda _, __: True) if name == "point" else None
    twin = Inflate2dTo3d(separable=separable, time_padding=padding, where=where)(layer)
    assert isinstance(twin, SeparableConv3d if separable else nn.Conv3d)
    clips = torch.randn(2, 4, 4, 11, 9, dtype=torch.float64)
    expected = inflated_by_loops(layer, clips, [1 / 3] * 3, stride=1, padding=padding)
    torch.testing.assert_close(twin(clips), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("separable", [False, True], ids=["full", "separable"])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2), (5, 1), (5, 3)])
@pytest.mark.parametrize("init", ["average", "center"])
def test_time_kernel_stride_and_init(size, stride, init, separable):
    layer = conv("strided")
    twin = Inflate2dTo3d(size, init=init, separable=separable, time_stride=stride)(layer)
    taps = [1 / size] * size if init == "average" else [float(tap == size // 2) for tap in range(size)]
    clips = torch.randn(2, 4, 5, 8, 6, dtype=torch.float64)
    expected = inflated_by_loops(layer, clips, taps, stride=stride, padding="zeros")
    torch.testing.assert_close(twin(clips), expected, rtol=1e-10, atol=1e-12)


def test_conv_weight_is_one_five_dimensional_kernel():
    layer = conv("grouped")
    twin = Inflate2dTo3d(5)(layer)
    assert sorted(twin.state_dict()) == ["weight"]
    assert twin.weight.shape == (6, 2, 5, 3, 3)
    torch.testing.assert_close(twin.weight.sum(2), layer.weight)


def test_convolutions_of_one_pixel_stay_blind_to_time():
    assert Inflate2dTo3d()(conv("point")).weight.shape == (6, 4, 1, 1, 1)


@pytest.mark.parametrize(
    "options", [dict(padding_mode="reflect", padding=1), dict(padding="same", kernel_size=4)], ids=str
)
@pytest.mark.parametrize("stride", [1])
def test_padding_without_3d_counterpart_runs_after_a_temporal_convolution(options, stride):
    layer = nn.Conv2d(4, 6, **{"kernel_size": 3, **options}).double()
    twin = Inflate2dTo3d(time_padding="replicate")(layer)
    clips = torch.randn(2, 4, 4, 8, 6, dtype=torch.float64)
    expected = inflated_by_loops(layer, clips, [1 / 3] * 3, stride=stride, padding="replicate")
    torch.testing.assert_close(twin(clips), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [nn.BatchNorm2d, lambda c: nn.BatchNorm2d(c, affine=False), nn.InstanceNorm2d])
def test_batch_norm_sees_all_frames(make):
    layer = make(4).double()
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    twin = Inflate2dTo3d()(layer)
    clips = torch.randn(2, 4, 3, 5, 6, dtype=torch.float64)
    if isinstance(layer, nn.BatchNorm2d):
        layer.eval(), twin.eval()
        torch.testing.assert_close(twin(clips), torch.stack([layer(frame) for frame in clips.unbind(2)], 2))
        layer.train(), twin.train()
        folded = layer(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 3)).transpose(1, 2)
        torch.testing.assert_close(twin(clips), folded)
        torch.testing.assert_close(twin.running_mean, layer.running_mean)
    else:
        mean = clips.mean((2, 3, 4), keepdim=True)
        var = clips.var((2, 3, 4), keepdim=True, correction=0)
        torch.testing.assert_close(twin(clips), (clips - mean) / (var + layer.eps).sqrt())


POOLS = {
    "max": nn.MaxPool2d(3, 2, 1),
    "max, dilated": nn.MaxPool2d((2, 3), dilation=(1, 2), ceil_mode=True),
    "average": nn.AvgPool2d((3, 2), (2, 1), (1, 0), count_include_pad=False),
    "adaptive average": nn.AdaptiveAvgPool2d((2, None)),
    "adaptive max": nn.AdaptiveMaxPool2d(3),
    "lp": nn.LPPool2d(2.0, 2),
    "upsample": nn.Upsample(scale_factor=2),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools_run_frame_by_frame(name):
    layer = POOLS[name].double()
    clips = torch.randn(2, 4, 3, 7, 8, dtype=torch.float64)
    expected = torch.stack([layer(frame) for frame in clips.unbind(2)], 2)
    torch.testing.assert_close(Inflate2dTo3d()(layer)(clips), expected)


def test_pool_strides_time():
    clips = torch.randn(2, 4, 5, 8, 8)
    assert torch.equal(Inflate2dTo3d(time_stride=2)(nn.MaxPool2d(2))(clips), F.max_pool3d(clips[:, :, ::2], (1, 2, 2)))


def test_source_is_copied_not_touched():
    layer = conv("plain")
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    twin = Inflate2dTo3d(1)(layer)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert type(layer) is nn.Conv2d
    assert all(torch.equal(before[key], tensor) for key, tensor in layer.state_dict().items())


def test_frozen_half_precision_and_mode_carry_over():
    layer = conv("plain").to(torch.bfloat16).eval().requires_grad_(False)
    for separable in (False, True):
        twin = Inflate2dTo3d(separable=separable)(layer)
        assert not twin.training
        assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in twin.parameters())


@pytest.mark.parametrize("init", ["average", "center"])
def test_gradients_reach_every_tap(init):
    twin = Inflate2dTo3d(3, init=init)(conv("plain"))
    twin(torch.randn(1, 4, 3, 5, 5, dtype=torch.float64)).square().sum().backward()
    assert (twin.weight.grad.abs().amax((0, 1, 3, 4)) > 0).all()


def test_inflate_kernel_refuses_an_unknown_init():
    with pytest.raises(ValueError, match="init must be one of 'average', 'center', got 'random'"):
        inflate_kernel(torch.zeros(1, 1, 3, 3), 3, init="random")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(time_kernel=2), "time_kernel must be odd and positive, got 2"),
        (dict(time_kernel=-1), "time_kernel must be odd and positive, got -1"),
        (dict(init="random"), "init must be one of"),
        (dict(time_padding="reflect"), "time_padding must be one of"),
        (dict(time_stride=0), "time_stride must be a positive number of frames, got 0"),
        (dict(where={"layer1": 4}), "time_kernel must be odd and positive, got 4"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Inflate2dTo3d(**options)


def test_bad_where_is_refused():
    with pytest.raises(TypeError, match="where must be a predicate"):
        Inflate2dTo3d(where=3)


def test_tables_are_refused_for_a_single_layer():
    with pytest.raises(ValueError, match="time_stride must be an int for a single layer"):
        Inflate2dTo3d(time_stride={"0": 2})(nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match="where must be left out for a single layer"):
        Inflate2dTo3d(where={"0": 3})(nn.Conv2d(3, 4, 3))


def test_only_modules_are_taken():
    with pytest.raises(TypeError, match=r"module must be a torch.nn.Module, got str"):
        Inflate2dTo3d()("resnet50")
