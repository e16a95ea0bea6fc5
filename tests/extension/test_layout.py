"""A layout of one's own: a network of it is trained, exported and built again by its name."""

import pytest
import torch

import nl3d
import nl3d.cli
from nl3d.models import layouts
from nl3d.models.layouts import Layout, conv3x3, register_layout
from nl3d.models.resnet3d import ResNet3d
from tests.cli.test_commands import TOY


class Late(Layout):
    """Only the second convolution of a basic block spans time."""

    name = "late"

    def convolutions(self, in_channels, width, *, bottleneck, stride, time_kernel, padding):
        if bottleneck:
            raise ValueError("layout 'late' must have basic blocks")
        return conv3x3(in_channels, width, stride=stride), conv3x3(width, width, time_kernel, padding=padding)

    def read(self, first, second, *, bottleneck, separable):
        return second if not (bottleneck or separable or layouts.spans(first)) and layouts.spans(second) else None


@pytest.fixture
def _registered():
    register_layout(Late())
    yield
    del layouts._layouts["late"]


@pytest.mark.usefixtures("_registered")
def test_registered_layout_is_trained_exported_and_recognised(tmp_path):
    network = ["--model=resnet3d18", '--model-args={"layout": "late", "base_width": 4}', "--embedding-dim=8"]
    clips = ["--height=32", "--width=16", "--num-frames=2"]
    assert nl3d.cli.main(["train", *TOY, *network, *clips, f"--output={tmp_path / 'run'}"]) == 0
    assert nl3d.cli.main(["export", str(tmp_path / "run"), "--output", str(tmp_path / "weights")]) == 0
    built = ResNet3d.from_pretrained(tmp_path / "weights").eval()
    assert built.layer2[0].conv1.kernel_size == (1, 3, 3)
    assert built.layer2[0].conv2.kernel_size == (3, 3, 3)
    again = nl3d.resnet3d18(str(tmp_path / "weights")).eval()
    frames = torch.randn(2, 3, 2, 32, 16)
    torch.testing.assert_close(again(frames).embedding, built(frames).embedding)
    with pytest.raises(ValueError, match="layout must have a name of its own, but 'late' is registered already"):
        register_layout(Late())
