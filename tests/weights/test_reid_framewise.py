"""Transformers and other image networks of timm on every frame, by name."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

import nl3d
from nl3d.cli import main
from nl3d.models.framewise import FramewiseNet
from tests.oracles import randomise

CLIP = "vit_base_patch16_clip_224"  # the published trunk, here a small one of its kind
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2}


def image_network(size=(64, 32)):
    return randomise(timm.create_model(CLIP, num_classes=0, img_size=size, **SMALL)).eval()


@torch.no_grad()
@pytest.mark.parametrize("aggregation", ["mean", "attention"])
def test_clip_sees_each_frame_alone(aggregation, tmp_path):
    image = image_network()
    save_file(image.state_dict(), tmp_path / "clip.safetensors")
    model = nl3d.reid_model(
        CLIP, str(tmp_path / "clip.safetensors"), aggregation=aggregation, img_size=(64, 32), num_classes=5, **SMALL
    )
    assert isinstance(model, FramewiseNet)
    assert all(key.startswith(("head.", "aggregate.")) for key in model.new_tensors)
    clips = torch.randn(2, 3, 3, 64, 32)
    frames = torch.stack([image(frame) for frame in clips.unbind(2)], dim=2)  # CLIP's class token of each frame
    torch.testing.assert_close(model.forward_features(clips), frames[..., None, None])
    weights = model.aggregate.attention(frames[..., None, None]) if aggregation == "attention" else torch.ones(2, 3) / 3
    out = model(clips)
    torch.testing.assert_close(out.features, torch.einsum("bct,bt->bc", frames, weights))
    assert out.logits.shape == (2, 5)


def test_the_published_size_and_preprocessing():
    with torch.device("meta"):
        model = nl3d.reid_model(CLIP, aggregation="mean", num_classes=625)
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) > 85e6
    assert model.backbone.patch_embed.grid_size == (16, 8)
    assert model.pretrained_cfg["mean"] == timm.get_pretrained_cfg(CLIP).mean != (0.485, 0.456, 0.406)
    assert model.processor.size == (256, 128)


def test_a_network_with_its_head_is_saved_and_read_again(tmp_path):
    model = randomise(nl3d.reid_model(CLIP, aggregation="attention", img_size=(64, 32), num_classes=3, **SMALL)).eval()
    model.save_pretrained(tmp_path)
    clips = torch.randn(2, 3, 2, 64, 32)
    back = nl3d.from_pretrained(tmp_path)
    torch.testing.assert_close(back(clips).logits, model(clips).logits)
    assert back.processor == model.processor
    again = nl3d.reid_model(CLIP, str(tmp_path), aggregation="attention", num_classes=7, img_size=(64, 32), **SMALL)
    torch.testing.assert_close(again(clips).embedding, model(clips).embedding)
    assert again(clips).logits.shape == (2, 7)


def test_a_transformer_without_a_token_is_pooled_as_its_own_network_pools():
    model = nl3d.reid_model("test_vit2", aggregation="max").eval()
    height, width = model.processor.size
    clips = torch.randn(1, 3, 2, height, width)
    with torch.no_grad():
        wanted = torch.stack([model.backbone(frame) for frame in clips.unbind(2)]).amax(0)
    torch.testing.assert_close(model(clips).features, wanted)


def test_it_is_trained_resumed_and_fine_tuned(tmp_path):
    args = {"aggregation": "mean", "img_size": [32, 16], **SMALL}
    toy = {
        "--dataset": "walkers",
        "--data-args": '{"num_identities": 6, "num_test": 2, "num_frames": 4, "num_test_frames": 4}',
        "--num-frames": "2", "--frame-step": "1", "--num-pids": "2", "--epochs": "1", "--num-workers": "0",
    }  # fmt: skip
    words = [word for option in toy.items() for word in option]
    clips = ["--height", "32", "--width", "16"]
    network = ["--model", f"inflated:{CLIP}", "--model-args", json.dumps(args)]
    assert main(["train", *words, *clips, *network, "--output", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--output", str(tmp_path / "out")]) == 0
    assert nl3d.from_pretrained(tmp_path / "out").processor.size == (32, 16)
    assert main(["train", *words, "--weights", str(tmp_path / "out"), "--output", str(tmp_path / "tuned")]) == 0
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert (config["model"], config["model_args"]["aggregation"]) == (f"inflated:{CLIP}", "mean")


def test_weights_of_a_video_network_are_refused(tmp_path):
    save_file({"conv.weight": torch.zeros(1, 3, 3, 3, 3)}, tmp_path / "video.safetensors")
    with pytest.raises(ValueError, match="weights must be an image network's for aggregation='mean', got "):
        nl3d.reid_model("test_convnext", str(tmp_path / "video.safetensors"), aggregation="mean")
