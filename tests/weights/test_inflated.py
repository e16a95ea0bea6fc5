"""Inflated networks by name: weights from wherever, files both ways, timm's registry, re-identification on top."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

import nl3d
from nl3d.inflate.clips import TakesClips
from nl3d.weights.timm_registry import CONVOLUTIONAL
from tests.oracles import randomise


def image_network(name="test_convnext", **options):
    return randomise(timm.create_model(name, **options)).eval()


def clips():
    return torch.randn(2, 3, 3, 64, 32)


def test_random_weights_and_timms_options():
    model = nl3d.inflated("test_convnext", num_classes=5, drop_path_rate=0.1, in_chans=1)
    assert isinstance(model, TakesClips)
    assert model(torch.zeros(2, 1, 3, 64, 32)).shape == (2, 5)
    assert model.pretrained_cfg["num_frames"] == 8
    assert model.pretrained_cfg["mean"] == timm.get_pretrained_cfg("test_convnext").mean


def test_a_file_of_the_image_network_is_inflated(tmp_path):
    network = image_network()
    save_file(network.state_dict(), tmp_path / "image.safetensors")
    model = nl3d.inflated(
        "test_convnext", str(tmp_path / "image.safetensors"), time_padding="replicate", num_classes=1000
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images.unsqueeze(2).expand(-1, -1, 3, -1, -1)), network(images))


def test_a_file_of_the_inflated_network_comes_back(tmp_path):
    model = randomise(nl3d.inflated("test_convnext", num_classes=5)).eval()
    save_file(model.state_dict(), tmp_path / "video.safetensors")
    twin = nl3d.inflated("test_convnext", str(tmp_path / "video.safetensors"), num_classes=5).eval()
    x = clips()
    torch.testing.assert_close(twin(x), model(x))
    with pytest.raises(ValueError, match="must fill InflatedConvNeXt wholly"):
        nl3d.inflated("test_convnext", str(tmp_path / "video.safetensors"), num_classes=5, time_kernel=5)


@pytest.mark.parametrize("weights", ["imagenet", "r160_in1k", "hf-hub:timm/test_resnet.r160_in1k"])
def test_weights_by_name_come_from_the_hub(weights, tmp_path, monkeypatch):
    asked, network = [], image_network("test_resnet")
    save_file(network.state_dict(), tmp_path / "model.safetensors")

    def fetch(repo_id, filename, *, revision=None):
        asked.append((repo_id, filename))
        return tmp_path / "model.safetensors"

    monkeypatch.setattr("nl3d.weights.inflated.fetch", fetch)
    model = nl3d.inflated("test_resnet", weights, num_classes=7)
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
    assert torch.equal(model.bn1.running_mean, network.bn1.running_mean)
    assert model(clips()).shape == (2, 7)


def test_reid_model_reads_its_own_files(tmp_path):
    options = dict(non_local={"stages.2": (0,)}, embedding_dim=16)
    model = randomise(nl3d.reid_model("test_convnext", num_classes=9, **options)).eval()
    save_file(model.state_dict(), tmp_path / "reid.safetensors")
    x = clips()
    out = model(x)
    assert out.logits.shape == (2, 9)
    twin = nl3d.reid_model("test_convnext", str(tmp_path / "reid.safetensors"), num_classes=9, **options).eval()
    torch.testing.assert_close(twin(x), out)
    other = nl3d.reid_model("test_convnext", str(tmp_path / "reid.safetensors"), num_classes=4, **options).eval()
    torch.testing.assert_close(other(x).embedding, out.embedding)
    assert other(x).logits.shape == (2, 4)


def test_reid_model_pools_the_last_map_of_the_inflated_network(tmp_path):
    network = image_network("test_resnet")
    save_file(network.state_dict(), tmp_path / "image.safetensors")
    model = nl3d.reid_model(
        "test_resnet", str(tmp_path / "image.safetensors"), non_local={"layer3": (0,)}, init="center", num_classes=3
    ).eval()
    x = clips()
    expected = torch.stack([network.forward_features(frame) for frame in x.unbind(2)], 2)
    torch.testing.assert_close(model.forward_features(x), expected)
    torch.testing.assert_close(model(x).features, expected.mean((2, 3, 4)))
    torch.testing.assert_close(model.forward_head(expected, pre_logits=True), model.embed(x))
    assert any("non_local" in key for key in model.new_tensors)
    assert {key.split(".")[0] for key in model.new_tensors} == {"backbone", "head"}
    assert "backbone.conv1.0.weight" not in model.new_tensors
    assert model.pretrained_cfg["input_size"] == (3, 256, 128)
    model.reset_classifier(0)
    assert model(x).logits is None
    model.set_grad_checkpointing()
    with pytest.raises(ValueError, match="clips must be finite"):
        model.embed(torch.full_like(x, torch.nan))


def test_timm_knows_every_inflated_network():
    nl3d.register_timm(inflated=True)
    nl3d.register_timm(inflated=True)
    names = timm.list_models("inflated_*")
    assert {f"inflated_{name}" for family in CONVOLUTIONAL for name in timm.list_models(module=family)} == set(names)
    assert len(names) > 900  # 960 in timm 1.0.31
    assert not any("vit_base_patch" in name for name in names)
    model = timm.create_model("inflated_test_convnext", num_classes=5, time_kernel=5)
    assert model.stem[0].weight.shape[2] == 5
    features = timm.create_model("inflated_test_convnext", features_only=True)
    assert [x.shape[2] for x in features(clips())] == [3, 3, 3, 3]


def test_the_block_costs_no_timm():
    code = "import sys, nl3d.inflate; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_weights_are_refused_with_the_choices(tmp_path):
    with pytest.raises(
        ValueError, match="unknown weights 'kinetics' for test_resnet; choose from: imagenet, r160_in1k"
    ):
        nl3d.inflated("test_resnet", "kinetics")
    with pytest.raises(FileNotFoundError, match="must name an existing file"):
        nl3d.inflated("test_resnet", str(tmp_path / "none.safetensors"))
    save_file(image_network("test_convnext").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="weights must fit test_resnet"):
        nl3d.inflated("test_resnet", str(tmp_path / "other.safetensors"), num_classes=1000)
    nl3d.register_timm(inflated=True)
    with pytest.raises(ValueError, match="cache_dir must be left out"):
        timm.create_model("inflated_test_resnet", cache_dir=str(tmp_path))
