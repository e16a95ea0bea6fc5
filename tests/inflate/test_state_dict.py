import pytest
import timm
import torch
from torch import nn

from nl3d.hub.fill import fill_model, new_modules
from nl3d.inflate.state_dict import inflate_state_dict
from nl3d.layers.separable import SeparableConv3d
from nl3d.models.resnet3d import ResNet3d

NETWORKS = {"resnet18": ("basic", (2, 2, 2, 2)), "resnet50": ("bottleneck", (3, 4, 6, 3))}


@pytest.fixture(scope="module", params=NETWORKS)
def images(request):
    """An image network whose norms have left their starting values, or a swapped one would not show."""
    torch.manual_seed(0)
    net = timm.create_model(request.param, num_classes=11).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return request.param, net


def assert_equal(actual, expected):
    """Equal to 1e-5 of the largest value, after fifty layers in float32."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def inflated(name, net, *, init="average", keep_classifier=True, **options):
    block, counts = NETWORKS[name]
    with torch.device("meta"):
        model = ResNet3d(block=block, block_counts=counts, head="linear", num_classes=11, **options)
    tensors = inflate_state_dict(net.state_dict(), model, init=init, keep_classifier=keep_classifier)
    fill_model(model, tensors, new=new_modules(model))
    return model.eval()


@pytest.mark.parametrize("layout", ["separable", "i3d", "full"])
def test_a_still_clip_gives_what_the_image_gives(images, layout):
    name, net = images
    model = inflated(name, net, layout=layout, time_padding="replicate", non_local={"layer2": (1,)})
    assert all(key.startswith("layer2.non_local1.") for key in model.new_tensors)
    image = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        expected = net(image)
        logits = model(image.unsqueeze(2).expand(-1, -1, 3, -1, -1)).logits
    assert_equal(logits, expected)


@pytest.mark.parametrize("layout", ["separable", "full"])
def test_a_centred_kernel_sees_one_frame_only(images, layout):
    name, net = images
    model = inflated(name, net, init="center", layout=layout)
    frames = torch.randn(1, 3, 3, 64, 32)
    with torch.no_grad():
        maps = model.forward_features(frames)
        for t in range(3):
            assert_equal(maps[:, :, t], net.forward_features(frames[:, :, t]))


def test_layouts_are_one_network_on_moving_clips(images):
    """Separable and full inflation are the same linear map: the kernels multiply out."""
    name, net = images
    clips = torch.randn(1, 3, 4, 64, 32)
    with torch.no_grad():
        outputs = [inflated(name, net, layout=layout)(clips).features for layout in ("separable", "full")]
    assert_equal(*outputs)


def test_temporal_kernels_of_the_model_decide():
    with torch.device("meta"):
        model = ResNet3d(
            block_counts=(1, 1, 1, 1),
            base_width=4,
            stem_time_kernel=5,
            time_kernel=((3,), (1,), (5,), (1,)),
            layout="i3d",
        )
    tensors = {
        "conv1.weight": torch.rand(4, 3, 7, 7),
        "layer1.0.conv1.weight": torch.rand(4, 4, 1, 1),
        "layer2.0.conv1.weight": torch.rand(8, 16, 1, 1),
        "layer3.0.conv1.weight": torch.rand(16, 32, 1, 1),
    }
    out = inflate_state_dict(tensors, model)
    assert [out[key].shape[2] for key in tensors] == [5, 3, 1, 5]
    for key, tensor in tensors.items():
        torch.testing.assert_close(out[key].sum(2), tensor)
    assert out["layer2.0.conv1.weight"].data_ptr() == tensors["layer2.0.conv1.weight"].data_ptr()  # nothing to copy


def test_grouped_separable_kernel():
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = SeparableConv3d(4, 6, kernel_size=3, groups=2, bias=True)

    model, conv = Grouped(), nn.Conv2d(4, 6, 3, padding=1, groups=2)
    model.load_state_dict(inflate_state_dict({f"conv.{key}": t for key, t in conv.state_dict().items()}, model))
    image = torch.randn(1, 4, 5, 5)
    still = model.conv(image.unsqueeze(2).expand(-1, -1, 3, -1, -1))
    torch.testing.assert_close(still[:, :, 1], conv(image))


def test_image_classifier_is_dropped_or_kept(images):
    name, net = images
    model = inflated(name, net, keep_classifier=False)
    assert model.new_tensors == ("head.classifier.weight", "head.classifier.bias")
    assert torch.equal(inflated(name, net).head.classifier.weight, net.fc.weight)
    with pytest.raises(ValueError, match="keep_classifier needs a network with head='linear'"):
        inflate_state_dict(net.state_dict(), ResNet3d(block_counts=(1, 1, 1, 1), base_width=4), keep_classifier=True)


@pytest.mark.parametrize("other", ["resnet34", "resnext50_32x4d", "wide_resnet50_2", "resnet50d", "seresnet50"])
def test_another_architecture_is_refused(other):
    with torch.device("meta"):
        foreign = timm.create_model(other).state_dict()
        model = ResNet3d()
    with pytest.raises(ValueError, match="must fill ResNet3d wholly and be used wholly"):
        fill_model(model, inflate_state_dict(foreign, model), new=new_modules(model))
