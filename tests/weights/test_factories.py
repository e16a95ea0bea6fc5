import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import nl3d
from nl3d.layers.non_local import NonLocalBlock3d

TINY = {"base_width": 4, "embedding_dim": 8}
NETWORKS = [name for name in nl3d.list_models() if name.startswith("resnet3d")]
PLACES = {
    "resnet3d18_nl": {"layer2": [1], "layer3": [1]},
    "resnet3d34_nl": {"layer2": [1, 3], "layer3": [1, 3, 5]},
    "resnet3d50_nl": {"layer2": [1, 3], "layer3": [1, 3, 5]},
    "resnet3d101_nl": {"layer2": [1, 3], "layer3": [6, 13, 20]},
}


def saved(path, model):
    save_file(model.state_dict(), path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_architecture(name):
    with torch.device("meta"):
        model = getattr(nl3d, name)(num_classes=5)
    depth = int(name.removeprefix("resnet3d").removesuffix("_nl"))
    convolutions = [
        key
        for key, module in model.named_modules()
        if isinstance(module, nn.Conv3d)
        and "non_local" not in key
        and "downsample" not in key
        and "temporal" not in key
    ]
    assert len(convolutions) + 1 == depth  # and the fully connected layer that image networks end in
    assert model.num_classes == 5
    found = {
        stage: [int(key.removeprefix("non_local")) for key in getattr(model, stage)._modules if "non_local" in key]
        for stage in ("layer1", "layer2", "layer3", "layer4")
    }
    assert {stage: places for stage, places in found.items() if places} == PLACES.get(name, {})
    assert model.architecture() == (name, ("block", "block_counts"))
    assert model.pretrained_cfg["architecture"] == name


def test_options_reach_the_network():
    model = nl3d.resnet3d18(layout="full", time_padding="replicate", last_stride=1, pool="gem", **TINY)
    assert model.layer4[0].conv1.stride == (1, 1, 1)
    assert model.layer1[0].conv1.kernel_size == (3, 3, 3)
    assert model.head.pool.kind == "gem"
    assert not any(isinstance(m, NonLocalBlock3d) for m in nl3d.resnet3d18_nl(non_local={}, **TINY).modules())


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet3d50", {"foo": 1}, TypeError, "foo"),
        ("resnet3d50", {"block_counts": (1, 1, 1, 1)}, TypeError, "'block_counts', which its name fixes"),
        (
            "resnet3d50_nl",
            {"block": "basic"},
            TypeError,
            r"resnet3d50_nl\(\) got an unexpected keyword argument 'block'",
        ),
        ("resnet3d50", {"layout": "flat"}, ValueError, "layout must be one of"),
        ("resnet50_tp", {"aggregation": "rnn"}, ValueError, "aggregation must be one of 'mean', 'max'"),
        ("resnet50_ta", {"aggregation": "rnn"}, TypeError, "'aggregation', which its name fixes"),
        ("resnet50_rnn", {"layout": "full"}, TypeError, "layout"),
    ],
)
def test_wrong_options_are_named(name, options, error, message):
    with pytest.raises(error, match=message):
        getattr(nl3d, name)(**options)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (
            "msmt",
            ValueError,
            "unknown weights 'msmt' for resnet3d50_nl; choose from: imagenet, kinetics, .*, the path of a",
        ),
        ("none.safetensors", FileNotFoundError, "must name an existing file, got 'none.safetensors'"),
        ("folder/none", FileNotFoundError, "must name an existing file, got 'folder/none'"),
        (__file__, ValueError, r"test_factories\.py must be a file of weights, but is text"),
    ],
)
def test_wrong_weights_are_named(weights, error, message):
    with pytest.raises(error, match=message):
        nl3d.resnet3d50_nl(weights)


def test_a_file_of_its_own(tmp_path):
    model = nl3d.resnet3d18(num_classes=3, **TINY).eval()
    path = saved(tmp_path / "own.safetensors", model)
    clips = torch.rand(1, 3, 2, 32, 16)
    same = nl3d.resnet3d18(path, num_classes=3, **TINY).eval()
    torch.testing.assert_close(same(clips), model(clips))
    assert same.new_tensors == ()
    other = nl3d.resnet3d18(str(path), num_classes=4, **TINY)
    assert other.new_tensors == ("head.classifier.weight", "head.classifier.bias")
    assert nl3d.resnet3d18(path, **TINY).num_classes == 0


def test_without_non_local_blocks_into_with(tmp_path):
    model = nl3d.resnet3d18(**TINY).eval()
    deeper = nl3d.resnet3d18_nl(saved(tmp_path / "plain.safetensors", model), **TINY).eval()
    assert all("non_local1" in key for key in deeper.new_tensors)
    assert len(deeper.new_tensors) == 2 * 12
    clips = torch.rand(1, 3, 2, 32, 16)
    torch.testing.assert_close(deeper(clips).embedding, model(clips).embedding)  # fresh blocks are the identity


def test_a_layout_that_does_not_fit(tmp_path):
    path = saved(tmp_path / "separable.safetensors", nl3d.resnet3d18(**TINY))
    with pytest.raises(ValueError, match=r"missing: layer1\.0\.conv1\.weight \(4, 4, 3, 3, 3\)"):
        nl3d.resnet3d18(path, layout="full", **TINY)


def test_a_saved_folder_brings_its_options(tmp_path):
    model = nl3d.resnet3d18_nl(layout="full", non_local_mode="dot_product", num_classes=3, **TINY).eval()
    nn.init.normal_(model.layer3.non_local1.bn.weight)
    model.save_pretrained(tmp_path / "net")
    same = nl3d.resnet3d18_nl(tmp_path / "net", num_classes=3).eval()
    clips = torch.rand(1, 3, 2, 32, 16)
    torch.testing.assert_close(same(clips), model(clips))
    assert nl3d.resnet3d18_nl(tmp_path / "net", dropout=0.1).head.dropout.p == 0.1  # what is said here wins


def test_a_saved_file_brings_them_too(tmp_path):
    model = nl3d.resnet3d18(layout="full", last_stride=1, num_classes=3, **TINY).eval()
    model.save_pretrained(tmp_path / "net")
    path = (tmp_path / "net/model.safetensors").rename(tmp_path / "alone.safetensors")
    clips = torch.rand(1, 3, 2, 32, 16)
    torch.testing.assert_close(nl3d.resnet3d18(path, num_classes=3).eval()(clips), model(clips))


def test_building_from_a_file_draws_nothing_that_it_throws_away(tmp_path, monkeypatch):
    path = saved(tmp_path / "own.safetensors", nl3d.resnet3d18_nl(num_classes=3, **TINY))
    state = torch.get_rng_state()
    nl3d.resnet3d18_nl(path, num_classes=3, **TINY)
    assert torch.equal(torch.get_rng_state(), state)


def test_building_from_a_file_is_light(tmp_path):
    """On the meta device torch imports its compiler, a second and 150 MB, for a random number; we draw none."""
    path = saved(tmp_path / "own.safetensors", nl3d.resnet3d18(num_classes=3, **TINY))
    code = f"""
import sys, nl3d
nl3d.resnet3d18_nl({str(path)!r}, num_classes=5, **{TINY!r})
print([name for name in ("sympy", "torch._inductor", "timm") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_the_default_device_and_dtype_are_kept(tmp_path):
    path = saved(tmp_path / "own.safetensors", nl3d.resnet3d18(**TINY))
    with torch.device("meta"):
        assert nl3d.resnet3d18(path, **TINY).conv1.weight.is_meta
    assert not nl3d.resnet3d18(path, **TINY).conv1.weight.is_meta


@pytest.mark.cuda
def test_the_default_device_cuda(tmp_path):
    path = saved(tmp_path / "own.safetensors", nl3d.resnet3d18(**TINY))
    with torch.device("cuda"):
        assert nl3d.resnet3d18(path, **TINY).conv1.weight.is_cuda


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    import timm

    torch.manual_seed(0)
    net = timm.create_model("resnet50").eval()
    return net, saved(tmp_path_factory.mktemp("images") / "resnet50.safetensors", net)


@pytest.mark.parametrize("name", ["resnet50_tp", "resnet50_rnn", "resnet50_ta"])
def test_framewise_networks_take_the_image_network_whole(name, image_file):
    net, path = image_file
    model = getattr(nl3d, name)(path, num_classes=3).eval()
    assert not any(key.startswith("backbone.") for key in model.new_tensors)
    assert {key.split(".")[0] for key in model.new_tensors} <= {"aggregate", "head"}
    clips = torch.rand(1, 3, 2, 64, 32)
    with torch.no_grad():
        maps = model.forward_features(clips)
        torch.testing.assert_close(maps[:, :, 1], net.forward_features(clips[:, :, 1]), rtol=1e-4, atol=1e-4)
        assert model(clips).logits.shape == (1, 3)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_framewise_networks_read_their_own_file(image_file, tmp_path):
    _, path = image_file
    model = nl3d.resnet50_ta(path, num_classes=3, embedding_dim=8)
    own = saved(tmp_path / "own.safetensors", model)
    assert nl3d.resnet50_ta(own, num_classes=3, embedding_dim=8).new_tensors == ()


def test_imagenet_resnet50_keeps_nothing_but_new_modules_new(image_file):
    net, path = image_file
    model = nl3d.resnet3d50_nl(path, num_classes=625)
    assert {key.split(".")[0] for key in model.new_tensors} == {"layer2", "layer3", "head"}
    assert all("non_local" in key or key.startswith("head.") for key in model.new_tensors)
    torch.testing.assert_close(model.conv1.weight.sum(2), net.conv1.weight)
