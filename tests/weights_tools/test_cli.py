import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import nl3d
from weights_tools.cli import main


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_detect(published, capsys):
    path, _ = published("pyslowfast_i3d_nln_r50")
    code, out, _ = run(capsys, "detect", path, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["family"], found["architecture"], found["layout"]) == ("pyslowfast", "resnet3d50_nl", "i3d")
    assert found["non_local"] == [f"layer{s}.non_local{n}" for s, n in ((2, 1), (2, 3), (3, 1), (3, 3), (3, 5))]
    assert found["num_classes"] == 11
    code, out, _ = run(capsys, "detect", path)
    assert "family          pyslowfast" in out


@pytest.mark.parametrize("name", ["hara_r3d50", "fastreid_agw_r50", "pyslowfast_i3d_nln_r50", "torchreid_resnet50"])
def test_convert_then_verify_and_load(name, published, tmp_path, capsys):
    path, parity = published(name)
    output = tmp_path / "model.safetensors"
    assert run(capsys, "convert", path, "--output", output, "--license", "MIT", "--source", "https://x/y")[0] == 0
    for file in (path, output):  # the converted network needs no family to be told
        code, out, _ = run(capsys, "verify", file, "--against", parity)
        assert code == 0
        assert "logits" in out
        assert "FAILED" not in out
    with safe_open(output, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["license"], metadata["source"]) == ("MIT", "https://x/y")
    assert metadata["nl3d_version"] == nl3d.__version__
    assert len(metadata["sha256"]) == 64
    parity_file = load_file(parity)
    clips = parity_file["input"] if parity_file["input"].ndim == 5 else parity_file["input"].unsqueeze(2)
    with torch.inference_mode():
        logits = nl3d.from_checkpoint(output, num_classes=len(parity_file["out/logits"][0]))(clips).logits
    torch.testing.assert_close(logits, parity_file["out/logits"], rtol=1e-4, atol=1e-4)
    factory = nl3d.resnet3d50_nl if name in ("fastreid_agw_r50", "pyslowfast_i3d_nln_r50") else nl3d.resnet3d50
    with torch.inference_mode():
        logits = factory(output, num_classes=len(parity_file["out/logits"][0])).eval()(clips).logits
    torch.testing.assert_close(logits, parity_file["out/logits"], rtol=1e-4, atol=1e-4)


def test_convert_gives_the_same_bytes(published, tmp_path, capsys):
    path, _ = published("torchvision_resnet50")
    outputs = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for output in outputs:
        arguments = ("--layout", "separable", "--family", "torchvision", "--num-classes", "0", "--dtype", "float16")
        assert run(capsys, "convert", path, "--output", output, *arguments)[0] == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    tensors = load_file(outputs[0])
    assert tensors["layer1.0.conv2.temporal.weight"].dtype == torch.float16
    assert tensors["layer1.0.conv2.temporal.weight"].shape[2] == 3


def test_convert_writes_nothing_that_the_file_does_not_hold(published, tmp_path, capsys):
    path, _ = published("torchvision_resnet50")
    output = tmp_path / "model.safetensors"
    code, _, err = run(capsys, "convert", path, "--output", output, "--num-classes", "5")
    assert code == 2
    assert "head.classifier.weight" in err
    assert not output.exists()


def test_verify_tells_a_wrong_network(published, capsys):
    path, parity = published("mmaction2_i3d_r50_nl_embedded_gaussian")
    content = torch.load(path, weights_only=True)
    content["state_dict"]["backbone.layer3.2.conv2.conv.weight"] *= 1.01
    torch.save(content, path)
    code, out, _ = run(capsys, "verify", path, "--against", parity)
    assert code == 1
    rows = {line.split()[0]: line.split()[2] for line in out.splitlines()}
    assert rows["layer2"] == "ok"
    assert rows["layer3"] == rows["logits"] == "FAILED"


def test_diff(published, tmp_path, capsys):
    path, _ = published("torchreid_resnet50")
    content = torch.load(path, weights_only=True)
    assert run(capsys, "diff", path, path)[:2] == (0, "the same tensors\n")
    tensors = {key.removeprefix("module."): tensor for key, tensor in content["state_dict"].items()}
    tensors["bn1.weight"] = tensors["bn1.weight"] + 1
    tensors["extra"] = torch.zeros(1)
    del tensors["bn1.bias"]
    tensors["conv1.weight"] = tensors["conv1.weight"].half()
    tensors["layer1.0.conv1.weight"] = tensors["layer1.0.conv1.weight"].flatten(1)
    other = tmp_path / "other.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, other)
    code, out, _ = run(capsys, "diff", path, other)
    assert code == 1
    for words in (
        "bn1.weight: largest difference 1",
        "extra: only in other",
        "bn1.bias: only in torchreid",
        "conv1.weight: dtype float32 and float16",
        "layer1.0.conv1.weight: shape",
        "5 tensors differ",
    ):
        assert words in out


def test_card(published, tmp_path, capsys):
    path, _ = published("hara_r3d50")
    output, page = tmp_path / "model.safetensors", tmp_path / "README.md"
    run(capsys, "convert", path, "--output", output, "--license", "MIT")
    assert run(capsys, "card", output, "--output", page, "--repo", "me/mine")[0] == 0
    text = page.read_text()
    for words in ("license: mit", "hf-hub:me/mine", "hara_r3d", "112x112", "16 RGB frames", "Converted by nl3d"):
        assert words in text
    assert run(capsys, "card", output, "--output", page)[0] == 2
    code, _, err = run(capsys, "card", path)
    assert (code, err.count("\n")) == (2, 1)
    assert "must be written by nl3d-weights convert, but its header lacks config" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("detect", "absent.pth"), "does not exist"),
        (("pull", "imagenet"), "name must be like 'resnet3d50_nl.imagenet'"),
        (("pull", "resnet3d50_nl.msmt"), "unknown weights 'msmt' for resnet3d50_nl; choose from: imagenet"),
        (
            ("verify", "absent.pth", "--against", "absent.safetensors"),
            "parity file 'absent.safetensors' does not exist",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_convert_refuses_to_overwrite_and_leaves_nothing(published, tmp_path, capsys):
    path, _ = published("hara_r3d50")
    output = tmp_path / "model.safetensors"
    output.write_text("mine")
    assert run(capsys, "convert", path, "--output", output)[0] == 2
    assert output.read_text() == "mine"
    bad = tmp_path / "bad.pth"
    bad.write_bytes(path.read_bytes()[:1000])
    before = set(tmp_path.iterdir())
    assert run(capsys, "convert", bad, "--output", tmp_path / "new.safetensors")[0] == 2
    assert set(tmp_path.iterdir()) == before
