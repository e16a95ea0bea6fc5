import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import nn

import nl3d
from nl3d.models.framewise import FramewiseNet
from nl3d.models.resnet3d import ResNet3d
from nl3d.weights import records as weights

TINY = {"base_width": 4, "embedding_dim": 8}
CLIPS = torch.rand(1, 3, 3, 64, 32)


@pytest.fixture(scope="module", autouse=True)
def registered():
    nl3d.register_timm()


@pytest.fixture
def image_weights(hub, monkeypatch):
    """Makes ``imagenet`` of ResNet-18 a file of the test's own Hub."""
    torch.manual_seed(0)
    body = save(timm.create_model("resnet18").state_dict())
    spec = replace(weights.find_spec("resnet3d18", "imagenet"), sha256=hashlib.sha256(body).hexdigest())
    monkeypatch.setattr(weights, "WEIGHTS", (spec,))
    hub.add(spec.repo_id, {"model.safetensors": body}, commit=spec.revision)


def test_timm_lists_every_network():
    assert set(nl3d.list_models()) <= set(timm.list_models())
    assert {name for name in nl3d.list_models() if "3d" in name} <= set(timm.list_models("*3d*"))
    assert {f"{name}.imagenet" for name in nl3d.list_models()} <= set(timm.list_pretrained())


def test_registering_twice_changes_nothing(recwarn):
    before = timm.list_models()
    nl3d.register_timm()
    assert timm.list_models() == before
    assert not recwarn


@pytest.mark.parametrize("name", ["resnet3d18", "resnet3d18.imagenet"])
def test_pretrained_is_the_same_network(image_weights, name):
    torch.manual_seed(1)
    ours = nl3d.resnet3d18("imagenet", num_classes=5)
    torch.manual_seed(1)
    theirs = timm.create_model(name, pretrained=True, num_classes=5)
    assert type(theirs) is type(ours)
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(theirs.state_dict()[key], tensor) for key, tensor in ours.state_dict().items())
    assert theirs.pretrained_cfg == ours.pretrained_cfg


def test_the_cache_folder_of_timm_is_used(image_weights, tmp_path):
    timm.create_model("resnet3d18", pretrained=True, cache_dir=tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").rglob("model.safetensors"))
    assert not (tmp_path / "hub").exists()


def test_timm_s_names_of_options():
    model = timm.create_model("resnet3d18_nl", in_chans=1, drop_rate=0.25, global_pool="avg", num_classes=7, **TINY)
    assert (model.in_channels, model.head.dropout.p, model.num_classes) == (1, 0.25, 7)
    assert timm.create_model("resnet3d18", **TINY).num_classes == 0
    with pytest.raises(TypeError, match="drop_path_rate"):
        timm.create_model("resnet3d18", drop_path_rate=0.1)


def test_features_only():
    model = timm.create_model("resnet3d50_nl", features_only=True, out_indices=(0, 1, 3, 4), base_width=4).eval()
    whole = nl3d.resnet3d50_nl(base_width=4).eval()
    assert model.feature_info.channels() == [4, 16, 64, 128]
    assert model.feature_info.reduction() == [2, 4, 16, 32]
    shared = {key: t for key, t in whole.state_dict().items() if not key.startswith("head.")}
    model.load_state_dict(shared)
    maps = model(CLIPS)
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    torch.testing.assert_close(maps[-1], whole.forward_features(CLIPS))


def test_features_of_pretrained_weights(image_weights):
    model = timm.create_model("resnet3d18", pretrained=True, features_only=True, out_indices=(2,))
    whole = nl3d.resnet3d18("imagenet")
    assert torch.equal(model.layer2[0].conv1.spatial.weight, whole.layer2[0].conv1.spatial.weight)


def test_features_of_framewise_networks_are_refused():
    with pytest.raises(ValueError, match="features_only must be False for resnet50_tp"):
        timm.create_model("resnet50_tp", features_only=True)


@pytest.fixture
def saved(tmp_path):
    model = nl3d.resnet3d18_nl(num_classes=3, layout="full", last_stride=1, **TINY).eval()
    nn.init.normal_(model.layer2.non_local1.bn.weight)
    model.save_pretrained(tmp_path / "net")
    return model, tmp_path / "net"


def test_checkpoint_path(saved):
    model, folder = saved
    again = timm.create_model(
        "resnet3d18_nl",
        checkpoint_path=folder / "model.safetensors",
        num_classes=3,
        layout="full",
        last_stride=1,
        **TINY,
    )
    torch.testing.assert_close(again.eval()(CLIPS), model(CLIPS))


def test_saved_networks_from_folder_and_hub(saved, hub):
    model, folder = saved
    hub.add("org/net", {path.name: path.read_bytes() for path in folder.iterdir()})
    for name in (f"local-dir:{folder}", "hf-hub:org/net"):
        again = timm.create_model(name, pretrained=True).eval()
        torch.testing.assert_close(again(CLIPS), model(CLIPS))
        assert timm.create_model(name, pretrained=True, num_classes=5).num_classes == 5
        assert not hasattr(timm.create_model(name), "new_tensors")  # the network alone, with weights of its own


def test_a_saved_network_of_no_named_depth(hub, tmp_path):
    model = ResNet3d(block_counts=(1, 2, 1, 1), non_local={"layer2": (0,)}, num_classes=3, **TINY).eval()
    model.save_pretrained(tmp_path / "net")
    hub.add("org/net", {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()})
    again = timm.create_model("hf-hub:org/net", pretrained=True).eval()
    torch.testing.assert_close(again(CLIPS), model(CLIPS))
    assert again.architecture() == ("resnet3d", ())


@pytest.mark.parametrize(
    ("backbone", "aggregation", "name"),
    [("resnet10t", "attention", "framewise"), ("resnet10t", "max", "framewise"), ("resnet50", "rnn", "resnet50_rnn")],
)
def test_a_saved_framewise_network(hub, tmp_path, backbone, aggregation, name):
    model = FramewiseNet(backbone, aggregation=aggregation, embedding_dim=8, rnn_channels=8, num_classes=3).eval()
    model.save_pretrained(tmp_path / "net")
    hub.add("org/net", {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()})
    assert model.architecture()[0] == name
    copies = [timm.create_model("hf-hub:org/net", pretrained=True), FramewiseNet.from_pretrained(tmp_path / "net")]
    if name != "framewise":
        copies.append(getattr(nl3d, name)("hf-hub:org/net", num_classes=3))
        with pytest.raises(ValueError, match="must be of a resnet50_ta with aggregation='attention', got aggregation="):
            nl3d.resnet50_ta("hf-hub:org/net")
    for copy in copies:
        torch.testing.assert_close(copy.eval()(CLIPS), model(CLIPS))


def test_a_network_around_a_ready_backbone_cannot_be_saved(tmp_path):
    model = FramewiseNet(timm.create_model("resnet10t", num_classes=0))
    with pytest.raises(ValueError, match="backbone must be plain data"):
        model.save_pretrained(tmp_path)


def test_weights_by_overlay(saved, tmp_path):
    model, folder = saved
    again = timm.create_model(
        "resnet3d18_nl", pretrained=True, num_classes=3, pretrained_cfg_overlay={"file": str(folder)}
    )
    torch.testing.assert_close(again.eval()(CLIPS), model(CLIPS))
    save_file(model.state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="must name weights by tag, file or hf_hub_id"):
        timm.create_model("resnet3d18", pretrained=True, pretrained_cfg_overlay={"url": "https://example.org/x.pth"})


def test_unknown_tags_list_the_choices():
    with pytest.raises(ValueError, match="unknown weights 'msmt' for resnet3d18; choose from: imagenet"):
        timm.create_model("resnet3d18.msmt", pretrained=True)
    with pytest.raises(ValueError, match="pretrained must be False for resnet3d"):
        timm.create_model("resnet3d", pretrained=True)


def test_timm_is_left_alone_until_it_is_asked_to_know_the_networks():
    code = """
import sys, nl3d
print("timm" in sys.modules, [finder for finder in sys.meta_path if "nl3d" in type(finder).__module__])
import importlib.util, timm
importlib.util.find_spec("timm")
before = set(timm.list_models())
print([name for name in before if name.startswith(("resnet3d", "inflated_"))])
nl3d.register_timm()
print(len(set(timm.list_models()) - before), len(timm.list_models("resnet3d*")))
"""
    assert run(code).splitlines() == ["False []", "[]", "13 9"]


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
