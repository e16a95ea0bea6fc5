"""Networks that take clips: outputs, copies, files, compilation, export, checkpointing, and what they refuse."""

import copy
import io
import pickle
import threading
from collections import namedtuple

import pytest
import timm
import torch
from safetensors.torch import load_file, load_model, save_model
from torch import nn

from nl3d import Inflate2dTo3d
from nl3d.inflate.clips import ClipShape
from tests.oracles import randomise


def small(**options):
    return randomise(timm.create_model("test_resnet", num_classes=5, **options)).eval()


def inflated(**options):
    return Inflate2dTo3d(time_padding="replicate", **options)(small())


def clips(batch=2, frames=3):
    return torch.randn(batch, 3, frames, 32, 32)


def test_methods_of_the_image_network_take_clips():
    network, video, x = small(), inflated(), clips()
    features = video.forward_features(x)
    assert features.shape == (2, network.num_features, 3, 1, 1)
    torch.testing.assert_close(video.forward_head(features), video(x))
    assert video(x).shape == (2, 5)
    last, stages = video.forward_intermediates(x)
    torch.testing.assert_close(last, features)
    assert {stage.shape[:1] + stage.shape[2:3] for stage in stages} == {(2, 3)}
    assert video.pretrained_cfg == network.pretrained_cfg
    assert isinstance(video, type(network))
    video.reset_classifier(7)
    assert video(x).shape == (2, 7)
    video.reset_classifier(0, "")
    assert video(x).shape == features.shape


def test_logits_are_the_mean_over_frames():
    network, x = small(), clips()
    video = Inflate2dTo3d(init="center")(network)
    torch.testing.assert_close(video(x), torch.stack([network(frame) for frame in x.unbind(2)]).mean(0))


def test_feature_maps_keep_their_time():
    video = Inflate2dTo3d()(timm.create_model("test_convnext", features_only=True))
    assert [tuple(x.shape[:3]) for x in video(clips())] == [(2, c, 3) for c in video.feature_info.channels()]


def test_channels_last_network_gives_channels_first_clips():
    network = randomise(timm.create_model("mambaout_femto", num_classes=5)).eval()
    assert network.output_fmt == "NHWC"
    video, x = Inflate2dTo3d(init="center")(network), clips(frames=2)
    with torch.no_grad():
        expected = torch.stack([network.forward_features(frame) for frame in x.unbind(2)], 1)  # (B, T, H, W, C)
        features = video.forward_features(x)
        torch.testing.assert_close(features, expected.permute(0, 4, 1, 2, 3))
        torch.testing.assert_close(video.forward_head(features), video(x))
        torch.testing.assert_close(video.forward_intermediates(x)[0], features)


def test_outputs_in_containers_and_tokens_pass_through():
    Pair = namedtuple("Pair", "map extra")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            x = self.conv(x)
            return {"pair": Pair(x, None), "tokens": [x.flatten(2).mT], "vector": (x.mean((2, 3)),)}

    output = Inflate2dTo3d()(Net())(clips())
    assert output["pair"].map.shape == (2, 4, 3, 30, 30)
    assert output["pair"].extra is None
    assert output["tokens"][0].shape == (2, 3, 900, 4)
    assert output["vector"][0].shape == (2, 4)


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda video: pickle.loads(pickle.dumps(video))])
@pytest.mark.parametrize("separable", [False, True])
def test_copies_are_whole_and_independent(twin_of, separable):
    video, x = inflated(separable=separable), clips()
    expected = video(x)
    twin = twin_of(video)
    assert type(twin) is type(video)
    assert twin.clip_shape is not video.clip_shape
    twin(clips(3, 5))
    torch.testing.assert_close(twin(x), expected)
    torch.testing.assert_close(video(x), expected)


def test_saves_to_safetensors_and_loads_by_name(tmp_path):
    video, other, x = inflated(), inflated(), clips()
    randomise(other)
    save_model(video, tmp_path / "video.safetensors")
    load_model(other, tmp_path / "video.safetensors")
    torch.testing.assert_close(other(x), video(x))
    assert set(load_file(tmp_path / "video.safetensors")) == set(small().state_dict())
    file = io.BytesIO()
    torch.save(video.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("options", [{}, {"separable": True}, {"time_stride": {"layer3": 2}}], ids=str)
def test_compiles_as_one_graph(options):
    video = inflated(**options)
    compiled = torch.compile(video, fullgraph=True, backend="aot_eager")
    for shape in ((2, 3), (3, 5), (4, 4)):
        x = clips(*shape)
        torch.testing.assert_close(compiled(x), video(x), rtol=1e-4, atol=1e-4)


def test_exports_with_dynamic_batch_and_time():
    video = inflated()
    batch, time = torch.export.Dim("batch", min=2, max=16), torch.export.Dim("time", min=2, max=16)
    program = torch.export.export(video, (clips(),), dynamic_shapes=({0: batch, 2: time},))
    x = clips(4, 6)
    torch.testing.assert_close(program.module()(x), video(x), rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients():
    video, x = inflated().train(), clips()
    gradients = []
    for checkpointing in (False, True):
        video.set_grad_checkpointing(checkpointing)
        video.zero_grad()
        video(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in video.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_under_autocast(dtype):
    with torch.autocast("cpu", dtype=dtype):
        output = inflated()(clips())
    assert output.isfinite().all()


def test_channels_last_3d_is_folded_without_a_copy():
    video, x = inflated().to(memory_format=torch.channels_last_3d), clips()
    torch.testing.assert_close(video(x.to(memory_format=torch.channels_last_3d)), video(x), rtol=1e-4, atol=1e-4)
    shape = ClipShape()
    shape.num_clips, shape.lengths = 2, (3,)
    frames = torch.randn(6, 3, 8, 8).to(memory_format=torch.channels_last)
    unfolded = shape.unfold(frames)
    assert unfolded.is_contiguous(memory_format=torch.channels_last_3d)
    assert shape.fold(unfolded).data_ptr() == frames.data_ptr()


@pytest.mark.cuda
def test_equals_itself_on_cuda():
    video, x = inflated().double(), clips().double()
    expected = video(x)
    torch.testing.assert_close(video.cuda()(x.cuda()).cpu(), expected)


def test_maps_side_by_side_in_the_batch_keep_their_own_time():
    shape = ClipShape()
    shape.num_clips, shape.lengths = 2, (3,)
    frames = torch.arange(2 * 3 * 4).view(-1, 1, 1, 1)  # clip, frame, head
    clips_of_heads = shape.unfold_inside(frames)
    assert clips_of_heads.shape == (8, 1, 3, 1, 1)
    assert clips_of_heads[1].flatten().tolist() == [1, 5, 9]
    assert torch.equal(shape.fold_inside(clips_of_heads), frames)


def test_heads_folded_into_the_batch_are_not_taken_for_frames():
    network = randomise(timm.create_model("mvitv2_tiny", img_size=64, num_classes=5)).eval()
    x = clips(1, 2).repeat(1, 1, 1, 2, 2)
    with torch.no_grad():
        expected = torch.stack([network.forward_features(frame) for frame in x.unbind(2)], 1)
        output = Inflate2dTo3d(init="center")(network).forward_features(x)
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 32, 32), r"clips must be \(B, C, T, H, W\) with C=3.*for images clips.unsqueeze\(2\)"),
        (torch.zeros(2, 4, 3, 32, 32), r"with C=3, got .*if frames precede channels, use clips.transpose\(1, 2\)"),
        (torch.zeros(2, 3, 0, 32, 32), "must not be empty on any axis"),
        (torch.full((1, 3, 1, 32, 32), torch.nan), "must be finite"),
    ],
    ids=["images", "frames first", "no frames", "nan"],
)
def test_bad_clips_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        inflated()(x)


def test_a_time_layer_on_its_own_refuses_frames_but_takes_clips():
    video = inflated()
    layer = next(layer for layer in video.modules() if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 3)
    with pytest.raises(RuntimeError, match="call the inflated network that it is part of"):
        layer(torch.zeros(6, layer.in_channels, 8, 8))
    assert layer(torch.zeros(2, layer.in_channels, 3, 8, 8)).shape[:3] == (2, layer.out_channels, 3)


def test_a_batch_that_is_no_clips_is_refused():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(torch.cat([x[..., :4], x[..., 4:]]))

    with pytest.raises(ValueError, match=r"frames must be 2 clips of 3 frames .* got \(12, 3, 8, 4\).*with where="):
        Inflate2dTo3d()(Windows())(torch.zeros(2, 3, 3, 8, 8))
    Inflate2dTo3d(where=lambda *_: False)(Windows())(torch.zeros(2, 3, 3, 8, 8))


def test_two_threads_with_other_clips_are_noticed():
    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            if len(x) == 6:  # the thread's frames wait inside until the other call is over
                inside.set()
                assert over.wait(10)
            return x

    inside, over = threading.Event(), threading.Event()
    video, caught = Inflate2dTo3d()(Slow()), []

    def run():
        try:
            video(torch.zeros(2, 3, 3, 8, 8))
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(10)
    video(torch.zeros(4, 3, 2, 8, 8))
    over.set()
    thread.join()
    assert "give every thread its own copy" in caught[0]
