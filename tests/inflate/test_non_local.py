"""Non-local blocks in inflated networks."""

import copy

import pytest
import timm
import torch
from torch import nn

from nl3d import Inflate2dTo3d, NonLocalBlock3d
from nl3d.inflate import place_non_local
from tests.oracles import randomise

PLACES = {
    "test_convnext": {"stages.1": (0,)},
    "test_resnet": {"layer3": (0,)},
    "test_efficientnet": {"blocks.3": (0,)},
    "mambaout_femto": {"stages.2": (1,)},
    "regnety_002": {"s3": (1,)},
}


@pytest.mark.parametrize("name", PLACES)
def test_fresh_blocks_change_nothing_and_trained_ones_do(name):
    plain = Inflate2dTo3d()(randomise(timm.create_model(name, num_classes=5)).eval())
    video = copy.deepcopy(plain)
    place_non_local(video, PLACES[name], image_size=(64, 64))
    x = torch.randn(1, 3, 3, 64, 64)
    with torch.no_grad():
        expected = plain(x)
        torch.testing.assert_close(video(x), expected)
        new = {key for key in video.state_dict() if "non_local" in key}
        assert set(video.state_dict()) - new == set(plain.state_dict())
        for block in video.modules():
            if isinstance(block, NonLocalBlock3d):
                block.bn.weight.fill_(1.0)
        assert not torch.allclose(video(x), expected)
    assert not any(layer.training for layer in video.modules())
    assert "NonLocalBlock3d" in str(Inflate2dTo3d.report(video))


def test_a_block_sees_the_whole_clip_where_it_stands():
    """Against the block called by hand on the map of the stage."""
    stages = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1))
    video = Inflate2dTo3d()(nn.Sequential(stages)).double().eval()
    x = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    plain = video(x)
    place_non_local(video, {"0": (1,)}, mode="dot_product", subsample="before")
    block = video[0][1].non_local
    assert block.in_channels == 6
    randomise(block)
    torch.testing.assert_close(video(x), block(plain))
    assert not torch.allclose(video(x), plain)
    twin = copy.deepcopy(video)
    torch.testing.assert_close(twin(x), video(x))


def test_compiles_with_a_block():
    video = Inflate2dTo3d()(timm.create_model("test_resnet", num_classes=5)).eval()
    place_non_local(video, {"layer3": (0,)})
    x = torch.randn(2, 3, 3, 64, 64)
    torch.testing.assert_close(torch.compile(video, fullgraph=True, backend="aot_eager")(x), video(x))


def test_bad_places_are_refused():
    video = Inflate2dTo3d()(timm.create_model("test_resnet"))
    with pytest.raises(ValueError, match="must name stages of the network, got 'layer9'; choose from: conv1"):
        place_non_local(video, {"layer9": (0,)})
    with pytest.raises(ValueError, match=r"must index the 1 blocks of 'layer3' from 0, got 4"):
        place_non_local(video, {"layer3": (4,)})
    place_non_local(video, {"layer3": (0,)})
    with pytest.raises(ValueError, match="blocks without a non-local block"):
        place_non_local(video, {"layer3": (0,)})
    with pytest.raises(TypeError, match="network must come from Inflate2dTo3d, got ReLU"):
        place_non_local(nn.ReLU(), {"layer3": (0,)})
    flat = Inflate2dTo3d()(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten())))
    with pytest.raises(ValueError, match="blocks that give one map"):
        place_non_local(flat, {"1": (0,)})
