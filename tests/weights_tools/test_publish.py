"""Publish, pull, load: the real client against the tests' own Hub."""

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

import nl3d
from weights_tools.cli import main


@pytest.fixture
def converted(published, tmp_path, capsys):
    path, parity = published("pyslowfast_i3d_nln_r50")
    output = tmp_path / "model.safetensors"
    assert main(["convert", str(path), "--output", str(output), "--license", "Apache-2.0"]) == 0
    capsys.readouterr()
    return output, load_file(parity)


@pytest.fixture(autouse=True)
def _classic_upload(monkeypatch):
    """The large-file protocol with public words for it; the newer storage speaks through a compiled client alone."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def test_publish_then_pull_gives_equal_bits(converted, hub, monkeypatch, capsys, tmp_path):
    output, parity = converted
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert main(["publish", str(output), "--repo", "me/i3d-nl"]) == 0
    commit = capsys.readouterr().out.split("commit ")[1].strip()
    repo = hub.repos["me/i3d-nl"]
    assert repo.branches["main"] == commit
    assert len(repo.commits) == 2  # the empty repository, and everything else in one commit
    assert repo.commits[commit].keys() >= {"model.safetensors", "config.json", "README.md"}
    assert repo.commits[commit]["model.safetensors"] == output.read_bytes()
    assert b"hf-hub:me/i3d-nl" in repo.commits[commit]["README.md"]

    assert main(["pull", "hf-hub:me/i3d-nl"]) == 0
    pulled = capsys.readouterr().out.strip()
    assert load_file(pulled).keys() == load_file(output).keys()
    assert all(torch.equal(tensor, load_file(output)[key]) for key, tensor in load_file(pulled).items())

    nl3d.register_timm()
    clips, logits = parity["input"], parity["out/logits"]
    for model in (
        nl3d.resnet3d50_nl("hf-hub:me/i3d-nl", num_classes=11),
        nl3d.resnet3d50_nl(f"hf-hub:me/i3d-nl@{commit}", num_classes=11),
        timm.create_model("hf-hub:me/i3d-nl", pretrained=True),
    ):
        with torch.inference_mode():
            torch.testing.assert_close(model.eval()(clips).logits, logits, rtol=1e-4, atol=1e-4)


def test_publish_twice_adds_a_commit(converted, hub, monkeypatch, capsys, tmp_path):
    output, _ = converted
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert main(["publish", str(output), "--repo", "me/i3d-nl", "--private"]) == 0
    assert hub.repos["me/i3d-nl"].private
    assert main(["publish", str(output), "--repo", "me/i3d-nl", "--message", "again"]) == 0
    assert len(hub.repos["me/i3d-nl"].commits) == 3


def test_dry_run_sends_nothing(converted, hub, capsys):
    output, _ = converted
    assert main(["publish", str(output), "--repo", "me/i3d-nl", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"me/i3d-nl/model.safetensors: {output.stat().st_size:,} bytes" in out
    assert "config.json" in out
    assert "README.md" in out
    assert hub.log == []


def test_without_a_token(converted, hub, capsys):
    output, _ = converted
    assert main(["publish", str(output), "--repo", "me/i3d-nl"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "HF_TOKEN" in err
    assert hub.repos == {}


def test_a_large_file_that_does_not_arrive_leaves_no_commit(converted, hub, monkeypatch, capsys):
    output, _ = converted
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.refuse_storage = True
    assert main(["publish", str(output), "--repo", "me/i3d-nl"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]  # after the client's progress bar
    assert "nl3d-weights: me/i3d-nl could not be published" in last
    assert len(hub.repos["me/i3d-nl"].commits) == 1
