"""The weights that come with the package: whole, small, loaded without a network, and better than colours."""

import hashlib
import json
import socket

import pytest
import timm
import torch

import nl3d
from nl3d.metrics import evaluate
from nl3d.metrics.histogram import stripe_histogram
from nl3d.walkers import WalkerTracklets, WalkerWorld
from nl3d.weights.open import BUNDLED_MODEL, bundled_file
from nl3d.weights.records import find_spec
from weights_tools.pull import pull

SPEC = find_spec(BUNDLED_MODEL, "bundled")
FILE = bundled_file(SPEC)


def test_record_is_that_of_the_file():
    assert FILE.stat().st_size <= 8e6
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == SPEC.sha256
    config = json.loads(FILE.with_name("config.json").read_text())
    described = config["pretrained_cfg"]
    assert (config["clips"]["num_frames"], *described["input_size"][1:]) == SPEC.clip_size
    assert config["clips"]["frame_step"] == SPEC.frame_step
    assert (tuple(described["mean"]), tuple(described["std"])) == (SPEC.mean, SPEC.std)
    assert described["license"].lower() == SPEC.license.lower()
    assert config["layout"] == SPEC.layout


def test_loads_without_a_network(monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    model = nl3d.resnet3d18_nl("bundled")
    assert model.new_tensors == ()
    assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    assert nl3d.resnet3d18_nl("bundled", num_classes=5).new_tensors == (
        "head.classifier.weight",
        "head.classifier.bias",
    )
    assert pull("resnet3d18_nl.bundled") == FILE
    nl3d.register_timm()
    assert "resnet3d18_nl.bundled" in timm.list_pretrained("resnet3d*")
    again = timm.create_model("resnet3d18_nl.bundled", pretrained=True)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_training_leaves_the_file_alone():
    before = FILE.read_bytes()
    model = nl3d.resnet3d18_nl("bundled")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert FILE.read_bytes() == before


@pytest.mark.parametrize("name", ["resnet3d18", "resnet3d50_nl"])
def test_other_networks_have_none(name):
    with pytest.raises(ValueError, match=f"unknown weights 'bundled' for {name}"):
        getattr(nl3d, name)("bundled")


def test_finds_unseen_walkers_better_than_colours_do():
    """Of a world that it was not trained on, at the default difficulty."""
    frames, height, width = SPEC.clip_size
    world = WalkerWorld(seed=4242, num_identities=24, num_test=24, size=(height, width), alike=0.0)
    tracklets = WalkerTracklets(world, "query", num_frames=frames, step=SPEC.frame_step)
    clips = torch.stack([tracklets[place][0] for place in range(len(tracklets))])
    labels = (tracklets.pids, tracklets.pids, tracklets.camids, tracklets.camids)
    model = nl3d.resnet3d18_nl("bundled").eval()
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (SPEC.mean, SPEC.std))
    with torch.inference_mode():
        learnt = model.embed((clips.transpose(1, 2) / 255 - mean) / std)
    colours = stripe_histogram(clips)
    found, guessed = (evaluate(rows, rows, *labels).mAP for rows in (learnt, colours))
    assert found > 1.3 * guessed
