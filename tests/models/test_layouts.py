"""Layouts: what each builds, and one registered from outside."""

import pytest
import timm
import torch
from torch import nn

import nl3d
from nl3d.layers.appearance import AppearancePreservingConv3d
from nl3d.layers.separable import SeparableConv3d
from nl3d.models import layouts
from nl3d.models.layouts import Layout, conv3x3, register_layout
from nl3d.models.options import ResNet3dOptions
from nl3d.models.resnet3d import ResNet3d
from tests import oracles


class Gated(nn.Conv3d):
    """A 3x3 convolution whose output is scaled by what no image network has: it says itself how to be filled."""

    def __init__(self, in_channels, out_channels, time_kernel, stride):
        padding = (time_kernel // 2, 1, 1)
        super().__init__(in_channels, out_channels, (time_kernel, 3, 3), stride, padding, bias=False)
        self.gate = nn.Parameter(torch.ones(out_channels, 1, 1, 1))

    def reset_parameters(self):
        super().reset_parameters()
        if hasattr(self, "gate"):
            nn.init.ones_(self.gate)

    def forward(self, x):
        return super().forward(x) * self.gate

    def inflate(self, key, tensor, *, init):
        planes = tensor.unsqueeze(2).expand(-1, -1, self.kernel_size[0], -1, -1) / self.kernel_size[0]
        return {"weight": planes, "gate": torch.ones(len(tensor), 1, 1, 1)}


class Both(Layout):
    """Both of a block's first convolutions span time."""

    name = "both"

    def convolutions(self, in_channels, width, *, bottleneck, stride, time_kernel, padding):
        if bottleneck:
            first = nn.Conv3d(in_channels, width, (time_kernel, 1, 1), padding=(time_kernel // 2, 0, 0), bias=False)
        else:
            first = conv3x3(in_channels, width, time_kernel)
        return first, self.second(width, time_kernel, stride)

    def second(self, width, time_kernel, stride):
        return conv3x3(width, width, time_kernel, stride)

    def read(self, first, second, *, bottleneck, separable):
        return second if bottleneck and not separable and layouts.spans(first) and layouts.spans(second) else None


class GatedBoth(Both):
    name = "gated"

    def second(self, width, time_kernel, stride):
        return Gated(width, width, time_kernel, stride)

    def read(self, first, second, *, bottleneck, separable):
        return None


@pytest.fixture(autouse=True)
def _layouts(monkeypatch):
    monkeypatch.setattr(layouts, "_layouts", table := dict(layouts.LAYOUTS))
    for module in ("nl3d.models.layouts", "nl3d.convert.architecture", "nl3d.convert.layout"):
        monkeypatch.setattr(f"{module}.LAYOUTS", table)
    register_layout(Both())
    register_layout(GatedBoth())


SMALL = {"block_counts": (1, 1, 1, 1), "base_width": 4, "embedding_dim": 8}


@pytest.mark.parametrize("layout", ["both", "gated"])
def test_a_layout_from_outside_is_built_and_saved(layout, tmp_path):
    model = oracles.randomise(ResNet3d(**SMALL, layout=layout, num_classes=3)).eval()
    assert (type(model.layer1[0].conv2) is Gated) == (layout == "gated")
    model.save_pretrained(tmp_path)
    clips = torch.rand(1, 3, 4, 32, 16)
    torch.testing.assert_close(ResNet3d.from_pretrained(tmp_path)(clips).logits, model(clips).logits)


@pytest.mark.parametrize("layout", ["both", "gated"])
def test_a_layout_from_outside_is_inflated(layout):
    image = oracles.randomise(timm.create_model("resnet50", num_classes=3)).eval()
    model = nl3d.from_checkpoint(image.state_dict(), num_classes=3, layout=layout).eval()
    assert model.layer1[0].conv1.kernel_size == (3, 1, 1)
    frame = torch.rand(1, 3, 64, 32)
    still = frame.unsqueeze(2).expand(-1, -1, 15, -1, -1)
    with torch.no_grad():
        maps = model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(still)))))[:, :, 7]
        wanted = image.layer1(image.maxpool(image.act1(image.bn1(image.conv1(frame)))))
    torch.testing.assert_close(maps, wanted, rtol=1e-3, atol=1e-3)


def test_a_layout_from_outside_is_recognised_in_a_file():
    model = oracles.randomise(ResNet3d(**SMALL, layout="both", num_classes=3)).eval()
    again = nl3d.from_checkpoint(model.state_dict(), num_classes=3)
    assert again.options.layout == "both"
    clips = torch.rand(1, 3, 4, 32, 16)
    torch.testing.assert_close(again(clips).logits, model(clips).logits)


@pytest.mark.parametrize(
    ("layout", "block", "conv1", "conv2"),
    [
        ("separable", "bottleneck", (1, 1, 1), SeparableConv3d),
        ("separable", "basic", SeparableConv3d, SeparableConv3d),
        ("i3d", "bottleneck", (3, 1, 1), (1, 3, 3)),
        ("i3d", "basic", (3, 3, 3), (1, 3, 3)),
        ("full", "bottleneck", (1, 1, 1), (3, 3, 3)),
        ("full", "basic", (3, 3, 3), (3, 3, 3)),
        ("appearance_preserving", "bottleneck", (1, 1, 1), AppearancePreservingConv3d),
        ("appearance_preserving", "basic", (1, 3, 3), AppearancePreservingConv3d),
    ],
)
def test_kernels(layout, block, conv1, conv2):
    blocks = ResNet3d(**SMALL, layout=layout, block=block).get_submodule("layer3")[0]
    for conv, wanted in ((blocks.conv1, conv1), (blocks.conv2, conv2)):
        assert type(conv) is wanted if isinstance(wanted, type) else conv.kernel_size == wanted


def test_names():
    with pytest.raises(
        ValueError, match="must be one of 'separable', 'i3d', 'full', 'appearance_preserving', 'both', 'gated'"
    ):
        ResNet3dOptions(layout="flat")
    with pytest.raises(ValueError, match="'i3d' is registered already"):
        register_layout(layouts.I3d())
