"""Records and files of other projects through the factories: by name from the Hub, by path, through timm."""

import hashlib
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import nl3d
from nl3d.weights import records
from nl3d.weights.records import find_spec
from tests.weights_tools.conftest import PARITY


def parity(name):
    tensors = load_file(PARITY / f"{name}.safetensors")
    checkpoint = {key.removeprefix("ckpt/"): tensor for key, tensor in tensors.items() if key.startswith("ckpt/")}
    return checkpoint, tensors


def as_file(checkpoint, path, slot="state_dict"):
    torch.save({slot: checkpoint}, path)
    return path


@pytest.fixture
def kinetics(hub, tmp_path, monkeypatch):
    """The record's file as the Hub has it, but of a small network, whose hash is known."""
    checkpoint, tensors = parity("pytorchvideo_i3d_r50")
    spec = find_spec("resnet3d50_nl", "kinetics")
    content = as_file(checkpoint, tmp_path / "file.pyth", "model_state").read_bytes()
    hub.add(spec.repo_id, {spec.filename: content}, commit=spec.revision)
    nl3d.register_timm()  # while the table is whole
    monkeypatch.setattr(records, "WEIGHTS", (replace(spec, sha256=hashlib.sha256(content).hexdigest()),))
    return tensors


def test_kinetics_from_the_hub(kinetics, hub):
    model = nl3d.resnet3d50_nl("kinetics", num_classes=11)
    with torch.inference_mode():
        out = model(kinetics["input"])
    torch.testing.assert_close(out.logits, kinetics["out/logits"], rtol=1e-4, atol=1e-4)
    assert model.layer2.non_local3 is not None  # new, and the identity
    assert all("non_local" in name for name in model.new_tensors)
    assert model.pretrained_cfg["num_frames"] == 8
    assert model.pretrained_cfg["frame_step"] == 8
    assert model.pretrained_cfg["architecture"] == "resnet3d50_nl"
    assert model.pretrained_cfg["mean"] == (0.45, 0.45, 0.45)
    asked = len(hub.log)
    nl3d.resnet3d50("kinetics")
    assert len(hub.log) == asked  # from the cache


def test_kinetics_through_timm(kinetics):
    ours = nl3d.resnet3d50_nl("kinetics", num_classes=11)
    nl3d.register_timm()
    theirs = timm.create_model("resnet3d50_nl.kinetics", pretrained=True, num_classes=11).eval()
    with torch.inference_mode():
        torch.testing.assert_close(theirs(kinetics["input"]).logits, ours(kinetics["input"]).logits)


def test_another_layout_is_refused_with_the_remedy(kinetics):
    with pytest.raises(ValueError, match="layout") as error:
        nl3d.resnet3d50_nl("kinetics", layout="separable")
    assert "i3d" in str(error.value)


@pytest.mark.parametrize("weights", ["kinetics_nl", "reid_bot", "reid_agw"])
def test_what_is_not_on_the_hub_says_where_it_is(weights, hub):
    url = find_spec("resnet3d50_nl", weights).url
    with pytest.raises(ValueError, match="by hand and pass the file's path") as error:
        nl3d.resnet3d50_nl(weights)
    assert url in str(error.value)
    assert hub.log == []


def test_a_caffe2_file_by_path_keeps_its_own_blocks():
    path = PARITY / "pyslowfast_i3d_nln_r50.caffe2.pkl"
    with pytest.raises(ValueError, match="'pyslowfast' or 'tushar_i3res50'"):
        nl3d.resnet3d50_nl(path)
    model = nl3d.from_checkpoint(path, family="pyslowfast", num_classes=11)
    _, tensors = parity("pyslowfast_i3d_nln_r50")
    with torch.inference_mode():
        torch.testing.assert_close(model(tensors["input"]).logits, tensors["out/logits"], rtol=1e-4, atol=1e-4)


def test_image_reid_weights_are_inflated_into_the_paper_s_layout(tmp_path):
    checkpoint, tensors = parity("fastreid_bot_r50")
    model = nl3d.resnet3d50_nl(as_file(checkpoint, tmp_path / "market_bot_R50.pth", "model"), time_padding="replicate")
    assert hasattr(model.layer1[0].conv2, "temporal")
    assert model.pretrained_cfg["family"] == "fastreid_bot"
    with torch.inference_mode():
        still = model(tensors["input"].unsqueeze(2).repeat(1, 1, 4, 1, 1))
    torch.testing.assert_close(still.embedding, tensors["out/embedding"], rtol=1e-4, atol=1e-4)


def test_the_file_must_be_of_the_named_network(tmp_path):
    checkpoint, _ = parity("hara_r3d50")
    path = as_file(checkpoint, tmp_path / "r3d50.pth")
    assert nl3d.resnet3d50(path).conv1.weight.shape[2] == 7
    with pytest.raises(ValueError, match="must be of a resnet3d18, but are of a resnet3d50"):
        nl3d.resnet3d18(path)
    checkpoint, _ = parity("mmaction2_i3d_r50_nl_embedded_gaussian")
    path = as_file(checkpoint, tmp_path / "nl.pth")
    with pytest.raises(ValueError, match="hold non-local blocks, which resnet3d50 has none of; use resnet3d50_nl"):
        nl3d.resnet3d50(path)
    assert nl3d.resnet3d50_nl(path, num_classes=11).new_tensors == ()
    with pytest.raises(ValueError, match="must be an image network's in timm's names"):
        nl3d.resnet50_tp(path)


@pytest.mark.parametrize("name", ["reid_strong_baseline_r50", "fastreid_bot_r50", "torchreid_resnet50", "hara_r3d50"])
def test_a_safetensors_file_of_another_project(name, tmp_path):
    checkpoint, tensors = parity(name)
    path = tmp_path / "model.safetensors"
    save_file(checkpoint, path)
    clips = tensors["input"] if tensors["input"].ndim == 5 else tensors["input"].unsqueeze(2)
    frame_by_frame = {} if name == "hara_r3d50" else {"layout": "full", "time_kernel": 1, "stem_time_kernel": 1}
    model = nl3d.resnet3d50(path, num_classes=tensors["out/logits"].shape[1], **frame_by_frame)
    with torch.inference_mode():
        logits = model(clips).logits
    torch.testing.assert_close(logits, tensors["out/logits"], rtol=1e-4, atol=1e-4)
