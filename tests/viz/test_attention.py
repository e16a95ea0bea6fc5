"""The attention picture shows the row of the map that the network uses."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import nl3d
from nl3d.cli import main
from nl3d.viz import Attention, attention

OPTIONS = {"block": "basic", "block_counts": (1, 1, 1, 2), "base_width": 8}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = nl3d.ResNet3d(**OPTIONS, non_local={"layer2": (0,), "layer4": (1,)})
    network.pretrained_cfg.update(num_frames=4, input_size=(3, 64, 32))
    return network.eval()


def frames(count=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 3, 64, 32), dtype=torch.uint8, generator=generator)


def test_weights_are_the_row_of_all_pairs(model):
    clip = model.processor(frames())
    found = attention(model, clip, (2, 40, 10), "layer2.0")
    stage = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool, model.layer1)
    with torch.inference_mode():
        maps = model.layer2[0](stage(clip[None]))
        block = model.layer2.non_local0
        theta, phi = (layer(maps).flatten(2)[0].double() for layer in (block.theta, block.phi))
        pairs = (theta.T @ phi).softmax(1)
    t, height, width = maps.shape[2:]
    row = pairs[(2 * height + 40 * height // 64) * width + 10 * width // 32]
    torch.testing.assert_close(found.weights.double().flatten(), row, rtol=1e-4, atol=1e-7)
    assert found.largest == pytest.approx(float(row.max()), rel=1e-4)
    assert found.entropy == pytest.approx(float(-(row * row.log()).sum() / np.log(t * height * width)), rel=1e-3)
    assert torch.equal(found.frames, frames())


def test_frames_are_read_as_the_processor_does_and_the_mode_is_kept(model):
    model.train()
    by_frames, by_clip = attention(model, frames(), (0, 0, 0)), attention(model, model.processor(frames()), (0, 0, 0))
    assert model.training
    model.eval()
    assert by_frames.block == "layer4.non_local1"
    torch.testing.assert_close(by_frames.weights, by_clip.weights)


def test_entropy_of_one_place_and_of_all():
    single = torch.zeros(2, 4, 2)
    single[1, 3, 1] = 1
    sharp = Attention(single, frames(2), (0, 0, 0), "b")
    assert (sharp.largest, sharp.entropy) == (1, 0)
    assert sharp.strongest(1) == [((1, 56, 24), 1.0)]
    flat = Attention(torch.full((2, 4, 2), 1 / 16), frames(2), (0, 0, 0), "b")
    assert flat.entropy == pytest.approx(1)


def test_arrows_and_heat_stand_where_the_weight_is():
    weights = torch.zeros(2, 8, 4)
    weights[1, 6, 3] = 1
    black = Attention(weights, torch.zeros(2, 3, 64, 32, dtype=torch.uint8), (0, 4, 4), "b")
    arrows, heat = (np.asarray(black.draw(kind, tile_height=64)).astype(int) for kind in ("arrows", "heat"))
    second = slice(6 + 38, 6 + 38 + 32)
    y, x = 52 + 6, 28
    assert tuple(heat[y, second][x]) != tuple(heat[20, second][x])
    assert heat[y, second][x][0] > 150
    lit = arrows[6:70, second].sum(2) > 60
    assert lit[45:60, 10:32].any()
    assert not lit[:15, 15:].any()
    with pytest.raises(ValueError, match="kind must be 'arrows' or 'heat'"):
        black.draw("dots")


@pytest.mark.parametrize(
    ("position", "block", "sentence"),
    [
        ((4, 0, 0), None, r"position must be \(t, y, x\) within the clip of \(4, 64, 32\)"),
        ((0, 0, 0), "layer3.1", r"one of layer2\.non_local0, layer4\.non_local1, got 'layer3\.1'"),
    ],
)
def test_refusals(model, position, block, sentence):
    with pytest.raises(ValueError, match=sentence):
        attention(model, frames(), position, block)
    with pytest.raises(ValueError, match="without any"):
        attention(nl3d.ResNet3d(**OPTIONS), frames(), (0, 0, 0))


def test_command(tmp_path, capsys):
    for place, frame in enumerate(frames(5)):
        path = tmp_path / "people" / "a" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(path)
    arguments = [
        "show-attention",
        str(tmp_path / "people"),
        "a",
        "--at",
        "0,40,20",
        "--output",
        str(tmp_path / "a.png"),
    ]
    assert main(arguments) == 0
    assert "entropy" in capsys.readouterr().out
    assert Image.open(tmp_path / "a.png").height > 192
    assert main([*arguments, "--overwrite", "--clip", "9"]) == 2
    assert "clip must be below" in capsys.readouterr().err
    arguments[2] = "b"
    assert main([*arguments, "--overwrite"]) == 2
    assert "choose from: a" in capsys.readouterr().err
