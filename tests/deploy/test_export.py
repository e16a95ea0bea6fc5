"""Written graphs give PyTorch's answer in their own runtimes, for any number of clips."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import nl3d
from nl3d.cli import main
from nl3d.deploy.export import CHECKED_BATCHES, export

ROOT = Path(__file__).parents[2]
SMALL = {"block": "basic", "block_counts": (1, 1, 1, 1), "base_width": 8, "embedding_dim": 16, "num_classes": 5}


def awake(network):
    """Leave the identity starts, so that a graph without the non-local blocks would be noticed."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    network.pretrained_cfg.update(num_frames=4, input_size=(3, 32, 16))
    return network.eval()


def small(layout="separable", **options):
    return awake(nl3d.ResNet3d(**SMALL, layout=layout, non_local={"layer2": (0,)}, **options))


def run_onnx(path, array):
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: array}), strict=True)), session


def assert_close(found, output, tolerance=1e-4):
    for name, value in output._asdict().items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=0, atol=tolerance * value.abs().max())


NETWORKS = {
    **{layout: lambda layout=layout: small(layout) for layout in ("separable", "i3d", "full")},
    "dot_product": lambda: small(non_local_mode="dot_product", non_local_subsample="after"),
    "bnneck": lambda: small(head="bnneck", pool="gem"),
    "attention": lambda: awake(nl3d.FramewiseNet("resnet10t", aggregation="attention", num_classes=5)),
    "rnn": lambda: awake(nl3d.FramewiseNet("resnet10t", aggregation="rnn", num_classes=5)),
    "inflated": lambda: awake(nl3d.reid_model("resnet10t", None, num_classes=5, non_local={"layer2": (0,)})),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_gives_pytorchs_answer_for_any_number_of_clips(name, tmp_path):
    pytest.importorskip("onnxscript")
    network = NETWORKS[name]()
    assert export(network, tmp_path / "net.onnx").departure < 1e-4
    for batch in CHECKED_BATCHES:
        clips = torch.randn(batch, 3, 4, 32, 16)
        found, session = run_onnx(tmp_path / "net.onnx", clips.numpy())
        with torch.inference_mode():
            assert_close(found, network(clips))
    assert [axis.name for axis in session.get_inputs()] == ["clips"]
    assert session.get_inputs()[0].shape == ["batch", 3, 4, 32, 16]
    about = json.loads(session.get_modelmeta().custom_metadata_map["nl3d"])
    assert (about["input"], about["num_frames"], about["height"], about["mean"]) == (
        "clips", 4, 32, list(network.pretrained_cfg["mean"]),
    )  # fmt: skip


def test_a_graph_of_frames_takes_pixels_of_any_number_of_frames(tmp_path):
    pytest.importorskip("onnxscript")
    network = small()
    export(network, tmp_path / "net.onnx", uint8=True, dynamic_time=True)
    for frames in (1, 4, 7):
        pixels = np.random.default_rng(frames).integers(256, size=(2, frames, 32, 16, 3), dtype=np.uint8)
        found, session = run_onnx(tmp_path / "net.onnx", pixels)
        with torch.inference_mode():
            assert_close(found, network(torch.stack([network.processor(clip) for clip in pixels])))
    assert "mean" not in json.loads(session.get_modelmeta().custom_metadata_map["nl3d"])


def test_torch_export_loads_without_nl3d(tmp_path):
    network = small()
    export(network, tmp_path / "net.pt2", overwrite=True)
    files = {"nl3d": ""}
    module = torch.export.load(tmp_path / "net.pt2", extra_files=files).module()
    clips = torch.randn(3, 3, 4, 32, 16)
    with torch.inference_mode():
        assert_close(module(clips), network(clips), 1e-6)
    assert json.loads(files["nl3d"])["axes"] == "batch, RGB, time, height, width"


def test_openvino(tmp_path):
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    network = small()
    written = export(network, tmp_path / "net.xml")
    assert written.size == sum((tmp_path / f"net.{suffix}").stat().st_size for suffix in ("xml", "bin"))
    model = openvino.Core().read_model(tmp_path / "net.xml")
    assert json.loads(model.get_rt_info(["nl3d"]).value)["output"] == "features"
    clips = torch.randn(3, 3, 4, 32, 16)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(clips.numpy())
    with torch.inference_mode():
        assert_close({output.get_any_name(): value for output, value in found.items()}, network(clips))


def test_a_graph_that_departs_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    from nl3d.deploy import formats

    network = small()
    right = formats.FORMATS["torch-export"]
    wrong = formats.Format(right.suffixes, right.write, lambda path: lambda a: [x + 1 for x in right.open(path)(a)])
    monkeypatch.setitem(formats.FORMATS, "torch-export", wrong)
    with pytest.raises(ValueError, match=r"departs by .* nothing was written"):
        export(network, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_a_network_of_ones_own_with_one_tensor(tmp_path):
    class Mean(nn.Module):
        def forward(self, clips):
            return clips.mean((3, 4)).flatten(1)

    network = Mean()
    network.pretrained_cfg = {"mean": (0, 0, 0), "std": (1, 1, 1), "input_size": (3, 8, 4), "num_frames": 2}
    export(network, tmp_path / "net.pt2")
    found = torch.export.load(tmp_path / "net.pt2").module()(torch.ones(5, 3, 2, 8, 4))
    assert list(found) == ["embedding"]
    assert found["embedding"].shape == (5, 6)


def test_weights_stay_as_save_pretrained_writes_them(tmp_path):
    network = small()
    written = export(network, tmp_path / "net", half=True, license="MIT")
    loaded = nl3d.from_pretrained(tmp_path / "net")
    assert (written.format, loaded.pretrained_cfg["license"]) == ("safetensors", "MIT")
    assert "license" not in network.pretrained_cfg
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name].half().to(tensor.dtype))
    with pytest.raises(FileExistsError, match="choose another folder"):
        export(network, tmp_path / "net")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--output", "net.foo"], r"must be a folder, or end in \.onnx, \.pt2, \.xml"),
        (["--output", "net", "--format", "torch.jit"], "PyTorch has deprecated TorchScript; take torch-export"),
        (["--output", "net", "--format", "tflite"], "choose from safetensors, onnx"),
        (["--output", "net.onnx", "--format", "openvino"], "must agree with the suffix"),
        (["--output", "net.onnx", "--half"], "half must be left out for onnx"),
        (["--output", "net", "--uint8"], "uint8 must be left out for weights"),
        (["--output", "none/net.onnx"], "must lie in a folder that exists"),
    ],
)
def test_refusals(options, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "bundled", *options]) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_time_that_must_stay_fixed_is_said(tmp_path):
    network = awake(nl3d.FramewiseNet("resnet10t", aggregation="rnn"))
    with pytest.raises(ValueError, match="time must stay fixed for FramewiseNet"):
        export(network, tmp_path / "net.pt2", dynamic_time=True)


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'nl3d\[onnx\]'"):
        export(small(), tmp_path / "net.onnx")


def test_the_loop_without_pytorch_gives_the_same_ranking(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    generator = np.random.default_rng(0)
    for part, count in (("query", 3), ("gallery", 5)):
        for name in range(count):
            (tmp_path / part / f"t{name}").mkdir(parents=True)
            colour = generator.integers(256, size=3)
            for frame in range(6):  # a clip, and one that is filled from its own start
                pixels = np.clip(colour + generator.integers(-40, 40, size=(50, 21, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / f"t{name}" / f"{frame}.png")
    network = small()
    export(network, tmp_path / "net.onnx")
    monkeypatch.setattr(
        sys, "argv", ["onnx_rank", *(str(tmp_path / name) for name in ("net.onnx", "query", "gallery"))]
    )
    runpy.run_path(str(ROOT / "examples" / "onnx_rank.py"), run_name="__main__")
    query, gallery = (nl3d.embed(tmp_path / part, network) for part in ("query", "gallery"))
    for line, ranked in zip(capsys.readouterr().out.splitlines(), nl3d.rank(query, gallery), strict=True):
        name, *found = line.split()
        assert name == ranked.name
        assert [entry.split(":")[0] for entry in found] == [entry.name for entry in ranked.found]
        distances = [entry.distance for entry in ranked.found]
        np.testing.assert_allclose(
            [float(entry.split(":")[1]) for entry in found], distances, atol=1e-2 * max(distances)
        )
