"""One door for every network with weights: names, files, folders, runs' exports, and other projects' files."""

import pytest
import torch

import nl3d
from nl3d.cli import main
from nl3d.models.framewise import FramewiseNet
from nl3d.models.resnet3d import ResNet3d
from tests.convert.foreign import published
from tests.oracles import randomise

SMALL = {"block": "basic", "block_counts": (1, 1, 1, 1), "base_width": 4, "embedding_dim": 8}
CLIPS = torch.rand(2, 3, 4, 64, 32)

NETWORKS = {
    "a named depth": lambda: nl3d.resnet3d18_nl(base_width=4, embedding_dim=8, num_classes=3),
    "no named depth": lambda: ResNet3d(**SMALL, num_classes=3, layout="full"),
    "frame-wise": lambda: FramewiseNet("resnet10t", aggregation="attention", embedding_dim=8, num_classes=3),
    "inflated": lambda: nl3d.reid_model(
        "test_convnext", num_classes=3, embedding_dim=8, non_local={"stages.2": (0,)}, non_local_scale=True
    ),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return randomise(NETWORKS[request.param]()).eval()


def same(model, network):
    with torch.no_grad():
        torch.testing.assert_close(model(CLIPS).logits, network(CLIPS).logits)
    return type(model) is type(network) and not model.training


def test_a_saved_network_comes_back_as_what_it_is(network, tmp_path):
    network.save_pretrained(tmp_path / "folder")
    assert same(nl3d.from_pretrained(tmp_path / "folder"), network)
    assert nl3d.from_pretrained(tmp_path / "folder", num_classes=0).num_classes == 0
    assert nl3d.from_pretrained(tmp_path / "folder", num_classes=7).new_tensors[0].startswith("head.classifier")


def test_its_file_alone_is_enough(network, tmp_path):
    network.save_pretrained(tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").rename(tmp_path / "alone.safetensors")
    assert same(nl3d.from_pretrained(tmp_path / "alone.safetensors"), network)


def test_the_command_line_takes_a_folder_without_its_network_s_name(network, tmp_path):
    from tests.data.pictures import write_jpeg

    network.save_pretrained(tmp_path / "folder")
    for number in range(3):
        write_jpeg(tmp_path / "people" / "ann" / f"{number}.jpg", (80 * number, 90, 30))
    arguments = ["embed", tmp_path / "people", "--weights", tmp_path / "folder", "--output", tmp_path / "o.safetensors"]
    assert main([*map(str, arguments), "--size", "64x32", "--output-layer", "embedding"]) == 0
    assert nl3d.Embeddings.load(tmp_path / "o.safetensors").embeddings.shape == (1, 8)


def test_names_of_a_network_and_its_weights():
    bundled = nl3d.resnet3d18_nl("bundled").state_dict()
    for model in (
        nl3d.from_pretrained("bundled"),
        nl3d.from_pretrained("resnet3d18_nl/bundled"),
        nl3d.from_pretrained("resnet3d18_nl", "bundled"),
    ):
        assert not model.training
        assert all(torch.equal(tensor, bundled[key]) for key, tensor in model.state_dict().items())


def test_files_of_other_projects(tmp_path):
    torch.save(published("torchreid_resnet50"), tmp_path / "file.pth")
    model = nl3d.from_pretrained(tmp_path / "file.pth")
    assert model.pretrained_cfg["family"] == "torchreid"
    with pytest.raises(ValueError, match="family must be one of"):
        nl3d.from_pretrained(tmp_path / "file.pth", family="nobody")


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (("gone",), FileNotFoundError, "got 'gone', which is none of them"),
        (("resnet3d18_nl",), ValueError, "choose from: imagenet, bundled"),
        (("resnet3d18_nl/msmt",), ValueError, "unknown weights 'msmt' for resnet3d18_nl"),
        (("resnet51", "imagenet"), ValueError, "source must be a network if weights are given"),
    ],
)
def test_what_is_unknown_is_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        nl3d.from_pretrained(*arguments)
