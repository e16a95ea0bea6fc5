import pytest
import torch

from nl3d.layers.non_local import NonLocalBlock3d
from nl3d.training.checkpoint import write_checkpoint
from nl3d.training.networks import SMALL, build_network
from tests.oracles import randomise
from tests.training.toys import toy_config


def save(model, config, run):
    write_checkpoint(run / "best.safetensors", model.state_dict(), {})
    (run / "config.json").write_text(config.to_json())


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_train_and_describe_their_clips(name):
    model = build_network(toy_config(model=name, grad_checkpointing=True), 5)
    out = model(torch.randn(2, 3, 3, 32, 16))
    assert out.embedding.shape == (2, 8)
    out.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    described = {key: model.pretrained_cfg[key] for key in ("num_frames", "frame_step", "input_size")}
    assert described == {"num_frames": 2, "frame_step": 4, "input_size": (3, 32, 16)}
    has = any(isinstance(module, NonLocalBlock3d) for module in model.modules())
    assert has == (name == "small_3d_nl")


def test_small_baseline_is_the_mean_over_frames():
    model = randomise(build_network(toy_config(model="small_tp"), 5)).eval()
    clips = torch.randn(2, 3, 4, 32, 16)
    frames = torch.stack([model(clips[:, :, [time]]).features for time in range(4)])
    torch.testing.assert_close(model(clips).features, frames.mean(0), rtol=1e-4, atol=1e-5)
    assert torch.allclose(model(clips).features, model(clips.flip(2)).features, atol=1e-5)


@pytest.mark.parametrize("name", ["small_rnn", "small_3d", "small_3d_nl"])
def test_the_others_see_time(name):
    model = randomise(build_network(toy_config(model=name), 5)).eval()
    clips = torch.randn(1, 3, 4, 32, 16)
    assert not torch.allclose(model(clips).features, model(clips.flip(2)).features, atol=1e-4)


def test_zoo_networks_take_the_options():
    model = build_network(toy_config(model="resnet3d18_nl", last_stride=1, head="bnneck"), 5)
    assert model.embedding_dim == model.num_features == 32
    assert model.layer4[0].conv1.spatial.stride == (1, 1, 1)


def test_fine_tuning_keeps_all_but_the_classifier(tmp_path):
    config = toy_config()
    source = randomise(build_network(config, 5))
    save(source, config, tmp_path)
    tuned = build_network(toy_config(weights=str(tmp_path)), 7)
    expected = source.state_dict()
    for name, tensor in tuned.state_dict().items():
        if name.startswith("head.classifier."):
            assert tensor.shape[0] == 7
        else:
            assert torch.equal(tensor, expected[name]), name
    with pytest.raises(ValueError, match=r"weights must be 'none' or a run for small_3d_nl, none are published, got"):
        build_network(toy_config(weights=str(tmp_path / "none")), 7)


def test_inflating_an_image_network_keeps_its_answer_to_a_still(tmp_path):
    config = toy_config(model="small_tp")
    image = randomise(build_network(config, 5)).eval()
    save(image, config, tmp_path)
    args = {"base_width": 4, "time_padding": "replicate"}
    video = build_network(toy_config(inflate_from=str(tmp_path), model_args=args), 5).eval()
    still = torch.randn(2, 3, 1, 32, 16).repeat(1, 1, 4, 1, 1)
    torch.testing.assert_close(video(still).embedding, image(still).embedding, rtol=1e-4, atol=1e-4)
    clips = torch.randn(2, 3, 4, 32, 16)
    assert not torch.allclose(video(clips).embedding, image(clips).embedding, atol=1e-3)


def test_inflating_refuses_other_pairs(tmp_path):
    config = toy_config(model="small_3d")
    save(build_network(config, 5), config, tmp_path)
    with pytest.raises(
        ValueError, match="inflate_from must be a run of small_tp, for a 3D network, got one of small_3d"
    ):
        build_network(toy_config(inflate_from=str(tmp_path)), 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet99"}, "model must be one of small_tp, .*resnet3d50_nl.*, got 'resnet99'"),
        ({"weights": "imagenet"}, "weights must be 'none' or a run for small_3d_nl"),
        ({"model": "small_rnn", "head": "bnneck"}, "head must be 'bottleneck' for small_rnn, got 'bnneck'"),
        ({"model": "resnet50_tp", "last_stride": 1}, "last_stride must be 2 and head 'bottleneck' for resnet50_tp"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        build_network(toy_config(**changes), 5)
