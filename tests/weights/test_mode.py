"""A network with weights comes in evaluation mode from every door, one without in training mode."""

import pytest
import timm
import torch
from safetensors.torch import save_file

import nl3d
from nl3d.models.framewise import FramewiseNet
from nl3d.models.resnet3d import ResNet3d

SMALL = {"base_width": 4, "embedding_dim": 8}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    nl3d.resnet3d18(**SMALL).save_pretrained(folder / "video")
    FramewiseNet("test_resnet", embedding_dim=8).save_pretrained(folder / "framewise")
    nl3d.resnet50_tp(embedding_dim=8).save_pretrained(folder / "resnet50_tp")
    save_file(timm.create_model("resnet18").state_dict(), folder / "image.safetensors")
    save_file(timm.create_model("test_resnet").state_dict(), folder / "small.safetensors")
    torch.save(nl3d.resnet3d18(**SMALL).state_dict(), folder / "video.pth")
    nl3d.reid_model("test_resnet").save_pretrained(folder / "inflated")
    return folder


WITH_WEIGHTS = {
    "factory, folder": lambda folder: nl3d.resnet3d18(folder / "video"),
    "factory, file": lambda folder: nl3d.resnet3d18(folder / "video" / "model.safetensors"),
    "factory, image file": lambda folder: nl3d.resnet3d18(folder / "image.safetensors"),
    "factory, .pth": lambda folder: nl3d.resnet3d18(folder / "video.pth"),
    "factory, bundled": lambda folder: nl3d.resnet3d18_nl("bundled"),
    "frame-wise factory": lambda folder: nl3d.resnet50_tp(folder / "resnet50_tp"),
    "from_checkpoint": lambda folder: nl3d.from_checkpoint(folder / "image.safetensors"),
    "from_pretrained of the class": lambda folder: ResNet3d.from_pretrained(folder / "video"),
    "from_pretrained of the frame-wise class": lambda folder: FramewiseNet.from_pretrained(folder / "framewise"),
    "from_pretrained": lambda folder: nl3d.from_pretrained(folder / "video"),
    "from_pretrained, inflated": lambda folder: nl3d.from_pretrained(folder / "inflated"),
    "inflated": lambda folder: nl3d.inflated("test_resnet", str(folder / "small.safetensors")),
    "reid_model": lambda folder: nl3d.reid_model("test_resnet", str(folder / "small.safetensors")),
}

WITHOUT_WEIGHTS = {
    "class": lambda: ResNet3d(**SMALL),
    "frame-wise class": lambda: FramewiseNet("test_resnet"),
    "factory": lambda: nl3d.resnet3d18(**SMALL),
    "frame-wise factory": lambda: nl3d.resnet50_rnn(),
    "inflated": lambda: nl3d.inflated("test_resnet"),
    "reid_model": lambda: nl3d.reid_model("test_resnet"),
}


@pytest.mark.parametrize("door", WITH_WEIGHTS)
def test_with_weights(door, files):
    assert not any(module.training for module in WITH_WEIGHTS[door](files).modules())


@pytest.mark.parametrize("door", WITHOUT_WEIGHTS)
def test_without_weights(door):
    assert all(module.training for module in WITHOUT_WEIGHTS[door]().modules())
