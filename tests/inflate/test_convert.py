"""Whole networks: still clips against the image network, moving ones against 3D networks built by hand."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from nl3d import Inflate2dTo3d
from nl3d.inflate.state_dict import inflate_state_dict
from nl3d.models.resnet3d import ResNet3d
from tests.oracles import randomise


def shaken(network):
    """Random weights and norm statistics of moderate size, in float64 and evaluation mode."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_var", "weight")) and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(std=0.2)
    return network.double().eval()


def own_network():
    """What a user may write: a stem, a custom residual module, pools, and code between the layers."""

    class Residual(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=2, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 1),
            )

        def forward(self, x):
            return F.relu(x + self.body(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, stride=(2, 1), padding=1)
            self.pool = nn.MaxPool2d(2)
            self.block = Residual(8)
            self.head = nn.Linear(8, 5)

        def forward_features(self, x):
            return self.block(self.pool(self.stem(x)))

        def forward(self, x):
            return self.head(self.forward_features(x).mean((2, 3)))

    return Net()


IMAGE_NETWORKS = {
    "own": own_network,
    "sequential": lambda: nn.Sequential(nn.Conv2d(3, 6, 5, 2, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)),
    "timm resnet": lambda: timm.create_model("test_resnet"),
    "timm resnext": lambda: timm.models.resnet.ResNet(
        timm.models.resnet.Bottleneck, (1, 1, 1, 1), cardinality=4, base_width=4, num_classes=5
    ),
    "timm seresnet": lambda: timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock, (1, 1, 1, 1), block_args={"attn_layer": "se"}, num_classes=5, drop_path_rate=0.5
    ),
    "timm resnet-d": lambda: timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock, (1, 1, 1, 1), stem_type="deep", stem_width=8, avg_down=True, num_classes=5
    ),
    "torchvision resnet": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5
    ),
    "torchvision wide": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=80,
        replace_stride_with_dilation=[False, False, True],
    ),
    "tensorflow padding": lambda: timm.create_model("test_efficientnet", pad_type="same", num_classes=5),
    "weight-standardised": lambda: timm.create_model("test_nfnet"),
    "conditional": lambda: timm.models.efficientnet._gen_efficientnet_condconv(
        "tf_efficientnet_cc_b0_4e", channel_multiplier=0.2, depth_multiplier=0.4, num_classes=5
    ),
}  # fmt: skip


def maps(network, x):
    """Last feature maps of a timm network or of anything else."""
    return network.forward_features(x) if hasattr(network, "forward_features") else network(x)


@pytest.mark.parametrize("separable", [False, True], ids=["full", "separable"])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_still_clip_gives_the_image_networks_answer_on_every_frame(name, separable):
    network = shaken(IMAGE_NETWORKS[name]())
    video = Inflate2dTo3d(time_padding="replicate", separable=separable)(network)
    images = torch.randn(2, 3, 32, 40, dtype=torch.float64)
    with torch.no_grad():
        expected = maps(network, images)
        output = maps(video, images.unsqueeze(2).expand(-1, -1, 3, -1, -1))
        moving = maps(video, torch.randn(1, 3, 2, 32, 40, dtype=torch.float64))
    if output.ndim == 5:
        assert not torch.allclose(moving[:, :, 0], moving[:, :, 1])
        expected = expected.unsqueeze(2).expand_as(output)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["own", "timm resnext", "tensorflow padding", "weight-standardised", "conditional"])
def test_center_starts_as_the_image_network_on_each_moving_frame(name):
    network = shaken(IMAGE_NETWORKS[name]())
    video = Inflate2dTo3d(5, init="center")(network)
    clips = torch.randn(2, 3, 3, 32, 40, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([maps(network, frame) for frame in clips.unbind(2)], 2)
        torch.testing.assert_close(maps(video, clips), expected, rtol=1e-9, atol=1e-9)


def test_zeros_give_the_answer_on_interior_frames_only():
    network = shaken(IMAGE_NETWORKS["sequential"]())
    images = torch.randn(2, 3, 20, 16, dtype=torch.float64)
    output = Inflate2dTo3d()(network)(images.unsqueeze(2).expand(-1, -1, 7, -1, -1))
    expected = network(images).unsqueeze(2)
    torch.testing.assert_close(output[:, :, 2:-2], expected.expand(-1, -1, 3, -1, -1))
    assert not torch.allclose(output[:, :, 1], expected[:, :, 0])


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_own_network_equals_the_3d_network_built_by_hand(training, padding):
    network = shaken(own_network()).train(training)
    video = Inflate2dTo3d(time_padding=padding)(network).train(training)
    body, norm = network.block.body, nn.BatchNorm3d(8).double().train(training)
    norm.load_state_dict(network.block.body[1].state_dict())
    clips = torch.randn(2, 3, 4, 12, 10, dtype=torch.float64)

    def conv(x, layer, t=3):
        kernel = (layer.weight / t).unsqueeze(2).repeat(1, 1, t, 1, 1)
        half = t // 2
        if padding == "replicate":
            x, half = F.pad(x, (0, 0, 0, 0, half, half), mode="replicate"), 0
        return F.conv3d(x, kernel, layer.bias, (1, *layer.stride), (half, *layer.padding), 1, layer.groups)

    x = F.max_pool3d(conv(clips, network.stem), (1, 2, 2))
    x = F.relu(x + conv(F.relu(norm(conv(x, body[0]))), body[3], t=1))
    torch.testing.assert_close(video.forward_features(clips), x)
    if training:
        torch.testing.assert_close(video.block.body[1].running_var, norm.running_var)
    logits = F.linear(x.mean((2, 3, 4)), network.head.weight, network.head.bias)
    torch.testing.assert_close(video(clips), logits)


def test_moving_clip_equals_the_package_s_3d_resnet():
    network = shaken(torchvision.models.resnet18())
    video = Inflate2dTo3d()(network)
    other = ResNet3d(block="basic", block_counts=(2, 2, 2, 2), layout="full").double().eval()
    tensors = inflate_state_dict(network.state_dict(), other)
    other.load_state_dict(tensors, strict=False)
    assert {key for key in video.state_dict() if not key.startswith("fc.")} <= set(other.state_dict())
    clips = torch.randn(1, 3, 4, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = other.forward_features(clips)
        pooled = F.linear(expected.mean((2, 3, 4)), network.fc.weight, network.fc.bias)
        torch.testing.assert_close(video(clips), pooled, rtol=1e-9, atol=1e-9)


def test_every_plain_convolution_is_a_five_dimensional_kernel():
    video = Inflate2dTo3d(where={"layer3": 5})(timm.create_model("resnet18"))
    kernels = {key: tensor for key, tensor in video.state_dict().items() if tensor.ndim > 2}
    assert all(tensor.ndim == 5 for tensor in kernels.values())
    assert {key for key, tensor in kernels.items() if tensor.shape[2] == 5} == {
        f"layer3.{block}.conv{i}.weight" for block in (0, 1) for i in (1, 2)
    }
    assert all(tensor.shape[2] in (1, 5) for tensor in kernels.values())


def test_where_takes_a_predicate_and_the_longest_name_of_a_table():
    network = timm.create_model("resnet18")
    picked = Inflate2dTo3d(where=lambda name, layer: name == "conv1")(network)
    assert {row.name for row in Inflate2dTo3d.report(picked) if row.time_kernel > 1} == {"conv1"}
    table = Inflate2dTo3d(where={"": 1, "layer1": 3, "layer1.0.conv2": 5, "layer2.0": 1})(network)
    assert {row.name: row.time_kernel for row in Inflate2dTo3d.report(table) if row.time_kernel > 1} == {
        "layer1.0.conv1": 3,
        "layer1.0.conv2": 5,
        "layer1.1.conv1": 3,
        "layer1.1.conv2": 3,
    }


def test_time_stride_keeps_every_second_frame_of_what_enters_a_stage():
    network = shaken(IMAGE_NETWORKS["timm resnext"]())
    clips = torch.randn(2, 3, 5, 32, 32, dtype=torch.float64)
    video = Inflate2dTo3d(init="center", time_stride={"layer2": 2, "layer4": 2})(network)
    with torch.no_grad():
        expected = torch.stack([network.forward_features(frame) for frame in clips[:, :, ::4].unbind(2)], 2)
        torch.testing.assert_close(video.forward_features(clips), expected)
        torch.testing.assert_close(video(clips), network.forward_head(expected[:, :, 0]) / 2 +
                                   network.forward_head(expected[:, :, 1]) / 2)  # fmt: skip
    features = Inflate2dTo3d(time_stride={"layer3": 2})(timm.create_model("test_resnet", features_only=True))
    assert [x.shape[2] for x in features(torch.zeros(1, 3, 5, 64, 64))] == [5, 5, 5, 3, 3]


def test_untouched_parameters_are_bit_for_bit_the_sources():
    network = timm.create_model("test_resnet")
    video = Inflate2dTo3d()(network)
    source, twin = network.state_dict(), video.state_dict()
    assert source.keys() == twin.keys()
    for key, tensor in source.items():
        if twin[key].ndim == 5:
            assert twin[key].shape[2] == (3 if max(tensor.shape[2:]) > 1 else 1)
        if twin[key].numel() == tensor.numel():
            assert torch.equal(twin[key].reshape(tensor.shape), tensor)
            if tensor.numel():
                assert twin[key].data_ptr() != tensor.data_ptr()


def test_share_keeps_the_sources_tensors():
    network = timm.create_model("test_resnet")
    video = Inflate2dTo3d(share=True)(network)
    twin = video.state_dict()
    for key, tensor in network.state_dict().items():
        assert (twin[key].data_ptr() == tensor.data_ptr()) == (twin[key].numel() == tensor.numel())
    assert video.bn1.weight is network.bn1.weight


def test_source_is_not_modified():
    network = timm.create_model("test_resnet")
    kinds = [type(layer) for layer in network.modules()]
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    video = Inflate2dTo3d()(network).train()
    video(torch.randn(2, 3, 2, 64, 64)).sum().backward()
    with torch.no_grad():
        for parameter in video.parameters():
            parameter.add_(1.0)
    assert [type(layer) for layer in network.modules()] == kinds
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_tied_parameters_stay_tied():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv2d(3, 4, 3))
    network[1].weight = network[0].weight
    video = Inflate2dTo3d()(network)
    assert video[0].weight is video[1].weight is not network[0].weight


def test_a_layer_used_twice_is_inflated_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.aliases = [self.conv]  # a reference that no walk over modules sees

        def forward(self, x):
            return self.aliases[0](self.conv(x))

    network = Twice().double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    video = Inflate2dTo3d(time_padding="replicate")(network)
    torch.testing.assert_close(video(images.unsqueeze(2))[:, :, 0], network(images))


def test_stochastic_depth_drops_whole_clips():
    network = timm.create_model("convnext_atto", drop_path_rate=0.9).train()
    video = Inflate2dTo3d(1)(network)
    frames = torch.randn(3, 3, 1, 32, 32).expand(-1, -1, 4, -1, -1)
    output = video.forward_features(frames)
    assert torch.equal(output[:, :, :1].expand_as(output), output)


def test_report_lists_what_became_what():
    video = Inflate2dTo3d()(timm.create_model("test_resnet"))
    report = Inflate2dTo3d.report(video)
    rows = {row.name: row for row in report}
    assert rows["conv1.0"][1:] == ("Conv2d 3x3", "Conv3d 3x3x3", 3) if "conv1.0" in rows else rows["conv1"].time_kernel
    assert rows["bn1"].after == "frame by frame"
    assert "->  Conv3d 3x3x3" in str(report)
    assert "BatchNorm2d x" in str(report)
    separable = Inflate2dTo3d(separable=True)(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    (row,) = (row for row in Inflate2dTo3d.report(separable) if row.time_kernel > 1)
    assert row[1:] == ("Conv2d 3x3", "SeparableConv3d Conv3d 3x1x1 + Conv3d 1x3x3", 3)
    with pytest.raises(TypeError, match="model must come from Inflate2dTo3d, got ReLU"):
        Inflate2dTo3d.report(nn.ReLU())


def test_networks_refuse_what_they_cannot_do():
    network = IMAGE_NETWORKS["sequential"]()
    with pytest.raises(ValueError, match=r"time_stride must name modules of a network, as \{'layer3': 2\}, got 2"):
        Inflate2dTo3d(time_stride=2)(network)
    with pytest.raises(ValueError, match=r"where must name modules of the network, got \['stem'\]; choose from: 0, 1"):
        Inflate2dTo3d(where={"stem": 3})(network)
    with pytest.raises(ValueError, match=r"time_stride must name modules of the network, got \['9'\]"):
        Inflate2dTo3d(time_stride={"9": 2})(network)
    with pytest.raises(TypeError, match="which is inflated already"):
        Inflate2dTo3d()(Inflate2dTo3d()(network))
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
    with pytest.raises(TypeError, match="module '0' must own its weight, but computes it"):
        Inflate2dTo3d()(normed)


def test_randomise_is_needed():
    """The oracle above would pass on zero residual branches; make sure that they are not zero."""
    network = shaken(IMAGE_NETWORKS["timm seresnet"]())
    randomise(network)
    assert network.layer1[0].bn2.weight.abs().min() > 0
