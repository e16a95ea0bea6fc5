"""The appearance-preserving convolution, position by position."""

import pytest
import timm
import torch
from torch import nn

import nl3d
from nl3d.layers.appearance import AppearancePreservingConv3d, FrameRegistration
from nl3d.models.resnet3d import ResNet3d
from tests import oracles


def registered(layer, centre, neighbour):
    """Rebuild ``centre`` (C, H, W) from ``neighbour``, one position after another."""
    weights = [conv.weight.flatten(1) for conv in (layer.g, layer.theta, layer.phi, layer.gate)]
    g, theta, phi, gate = weights
    result = torch.empty_like(centre)
    places = [(h, w) for h in range(centre.shape[1]) for w in range(centre.shape[2])]
    for h, w in places:
        own = g @ centre[:, h, w]
        likeness = torch.stack([torch.cosine_similarity(own, g @ neighbour[:, y, x], dim=0) for y, x in places])
        shares = (layer.sharpness * likeness).softmax(0)
        rebuilt = sum(share * neighbour[:, y, x] for share, (y, x) in zip(shares, places, strict=True))
        score = gate @ ((theta @ centre[:, h, w]) * (phi @ rebuilt))
        result[:, h, w] = rebuilt * torch.sigmoid(score)
    return result


def awake(layer):
    """Leave the identity start, and let the gate decide."""
    oracles.randomise(layer)
    return layer.double()


@pytest.mark.parametrize("time_padding", ["zeros", "replicate"])
@pytest.mark.parametrize(("time_kernel", "stride"), [(3, (1, 1, 1)), (5, (1, 2, 1)), (3, (2, 1, 2))])
def test_equals_registration_frame_by_frame(time_kernel, stride, time_padding):
    layer = awake(AppearancePreservingConv3d(18, 4, time_kernel=time_kernel, stride=stride, time_padding=time_padding))
    clips = torch.randn(2, 18, 5, 3, 2, dtype=torch.float64)
    half, zero = time_kernel // 2, torch.zeros(18, 3, 2, dtype=torch.float64)
    found = layer(clips)
    for number, clip in enumerate(clips):
        for step, frame in enumerate(range(0, 5, stride[0])):
            mixed = torch.zeros_like(zero)
            for tap, place in enumerate(range(frame - half, frame + half + 1)):
                inside = min(max(place, 0), 4)
                seen = clip[:, inside] if place == inside or time_padding == "replicate" else zero
                if tap != half:
                    seen = registered(layer.registration, clip[:, frame], seen)
                mixed += torch.einsum("oi,ihw->ohw", layer.temporal.weight[:, :, tap, 0, 0], seen)
            wanted = nn.functional.conv2d(mixed[None], layer.spatial.weight[:, :, 0], None, stride[1:], 1)[0]
            torch.testing.assert_close(found[number, :, step], wanted)


def test_a_shifted_neighbour_is_put_back():
    """Where each position looks different, a sharp registration undoes any shuffle of the neighbour."""
    layer = FrameRegistration(6, 6, sharpness=200.0).double()
    layer.g.weight.data = torch.eye(6, dtype=torch.float64).view(6, 6, 1, 1)
    layer.gate.weight.data.zero_()  # the gate is a half everywhere
    centre = torch.eye(6, dtype=torch.float64).view(1, 6, 3, 2)
    neighbour = centre.flatten(2)[:, :, torch.randperm(6)].view_as(centre)
    torch.testing.assert_close(layer(centre, neighbour), centre / 2)


def test_gradients():
    layer = awake(AppearancePreservingConv3d(4, 3))
    assert torch.autograd.gradcheck(layer, torch.randn(1, 4, 3, 2, 2, dtype=torch.float64, requires_grad=True))
    layer(torch.randn(1, 4, 3, 2, 2, dtype=torch.float64)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)])
def test_a_fresh_layer_sees_each_frame_alone(stride):
    layer = AppearancePreservingConv3d(8, 4, stride=stride)
    clips = torch.randn(2, 8, 4, 6, 4)
    frames = clips[:, :, :: stride[0]]
    torch.testing.assert_close(layer(clips), layer.spatial(frames))


@torch.no_grad()
def test_an_image_network_in_this_layout_is_the_image_network_on_any_clip():
    image = oracles.randomise(timm.create_model("resnet18", num_classes=3)).eval()
    video = nl3d.from_checkpoint(image.state_dict(), num_classes=3, layout="appearance_preserving").eval()
    assert [type(block.conv2) is AppearancePreservingConv3d for block in video.layer2] == [True, False]
    assert all(".registration." in key for key in video.new_tensors if not key.startswith("head."))
    clips = torch.rand(2, 3, 4, 64, 32)
    wanted = torch.stack([image.forward_features(frame) for frame in clips.unbind(2)], dim=2)
    torch.testing.assert_close(video.forward_features(clips), wanted, rtol=1e-3, atol=1e-3)


def test_a_network_is_saved_and_read_again(tmp_path):
    network = ResNet3d(
        layout="appearance_preserving", block_counts=(1, 2, 1, 1), base_width=4, embedding_dim=8, num_classes=2
    )
    network = oracles.randomise(network).eval()
    clips = torch.rand(1, 3, 4, 32, 16)
    network.save_pretrained(tmp_path)
    torch.testing.assert_close(nl3d.from_pretrained(tmp_path)(clips).logits, network(clips).logits)


@pytest.mark.parametrize("time_kernel", [1, 4])
def test_refusals(time_kernel):
    with pytest.raises(ValueError, match=f"time_kernel must be odd and at least 3, got {time_kernel}"):
        AppearancePreservingConv3d(4, 4, time_kernel=time_kernel)
    with pytest.raises(ValueError, match="channels and inner_channels must be at least 1, got 4 and 0"):
        FrameRegistration(4, 0)
