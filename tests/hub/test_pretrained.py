import json
import os
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nl3d.models.framewise import FramewiseNet
from nl3d.models.resnet3d import ResNet3d
from tests.models.test_framewise import TinyImageNet

TINY = {"block_counts": (1, 1, 1, 1), "base_width": 4, "embedding_dim": 8}
CLIPS = torch.rand(1, 3, 4, 32, 16)
# one option at a time away from its default, so that a forgotten one shows
OPTIONS = [
    {"block": "basic"},
    {"layout": "full"},
    {"layout": "i3d", "time_kernel": [[3], [1], [3], [1]], "stem_time_kernel": 5},
    {"stem_stride": (2, 2, 2), "stem_relu": False},
    {"stem_pool_kernel": (3, 3, 3), "stem_pool_stride": 2, "stem_pool_padding": 1, "stem_pool_ceil_mode": True},
    {"layer1_time_pool": 2},
    {"time_strides": [1, 2, 1, 1], "last_stride": 1},
    {"time_padding": "replicate", "shortcut": "pad", "norm_eps": 1e-3},
    {"non_local": {"layer2": [0], "layer3": (0,)}, "non_local_mode": "concatenation", "non_local_inner_channels": 3},
    {
        "non_local": {"layer2": (0,)},
        "non_local_scale": True,
        "non_local_subsample": "before",
        "non_local_time_window": 2,
    },
    {"head": "bnneck", "pool": "gem", "num_classes": 3, "classifier_bias": True},
    {"head": "bnneck", "projection_dim": 6},
    {"head": "linear", "pool": "frame_max", "num_classes": 3, "dropout": 0.1},
    {"embedding_dim": 16, "negative_slope": 0.3, "num_classes": 2},
]


def trained(**options):
    model = ResNet3d(**{**TINY, **options}).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)  # also those of non-local blocks, which start at zero
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_saved_and_loaded_computes_the_same(tmp_path, options):
    model = trained(**options)
    model.pretrained_cfg.update(num_frames=16, frame_step=4, input_size=(3, 128, 64), mean=(0.5, 0.4, 0.3))
    model.save_pretrained(tmp_path)
    again = ResNet3d.from_pretrained(tmp_path)
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    torch.testing.assert_close(again(CLIPS).embedding, model(CLIPS).embedding)
    for key in ("num_frames", "frame_step", "input_size", "mean", "std"):
        assert again.pretrained_cfg[key] == model.pretrained_cfg[key]
    assert json.loads(json.dumps(again.hub_config())) == json.loads((tmp_path / "config.json").read_text())


def test_every_option_of_the_constructor_is_tried():
    tried = {key for options in [TINY, *OPTIONS] for key in options}
    assert ResNet3d.option_names() - {"in_channels"} == tried


def test_config_has_timm_s_keys(tmp_path):
    ResNet3d(**TINY, num_classes=3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == config["pretrained_cfg"]["architecture"] == "resnet3d"
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 3
    assert config["num_features"] == 128
    assert config["model_args"]["block_counts"] == [1, 1, 1, 1]
    from timm.models import PretrainedCfg

    PretrainedCfg(**config["pretrained_cfg"])  # timm refuses keys that it does not know


def test_a_reset_classifier_is_saved_as_it_is(tmp_path):
    model = ResNet3d(**TINY, num_classes=3)
    model.reset_classifier(5)
    model.save_pretrained(tmp_path)
    assert ResNet3d.from_pretrained(tmp_path).num_classes == 5
    other = ResNet3d.from_pretrained(tmp_path, num_classes=7)
    assert other.new_tensors == ("head.classifier.weight", "head.classifier.bias")
    assert ResNet3d.from_pretrained(tmp_path, num_classes=0).new_tensors == ()


def test_the_card_says_what_the_clips_are(tmp_path):
    model = ResNet3d(**TINY)
    model.pretrained_cfg.update(license="bsd-3-clause", description="torchvision's", num_frames=4)
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "license: bsd-3-clause" in card
    assert "4 RGB frames" in card
    assert "torchvision's" in card
    (tmp_path / "README.md").write_text("my own words")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own words"


def test_saving_over_the_file_that_it_was_read_from(tmp_path):
    trained().save_pretrained(tmp_path)
    model = ResNet3d.from_pretrained(tmp_path)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    nn.init.zeros_(model.bn1.bias)
    model.save_pretrained(tmp_path)
    again = ResNet3d.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in before.items() if key != "bn1.bias")
    assert (again["bn1.bias"] == 0).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_save_that_fails_midway_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    trained().save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # as a disk that fills up
    try:
        with pytest.raises(OSError, match="File too large"):
            trained().save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_the_same_network_makes_the_same_bytes(tmp_path):
    model = trained()
    for name in "abcd":
        model.save_pretrained(tmp_path / name)
    for file in ("model.safetensors", "config.json", "README.md"):
        assert len({(tmp_path / name / file).read_bytes() for name in "abcd"}) == 1


def edit(folder, key, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))


def without_any_config(folder):
    (folder / "config.json").unlink()
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")


def killed_at(number, folder, work):
    """Run ``work`` in a process that dies before its ``number``-th change in a folder; whether it came to its end."""
    changes = {"open", "os.remove", "os.rename", "os.mkdir", "os.chmod", "shutil.copyfile"}
    child = os.fork()
    if not child:
        left = iter(range(number))

        def die(event, arguments):
            inside = event in changes and str(arguments[0]).startswith(str(folder))
            if inside and next(left, None) is None:
                os._exit(9)

        sys.addaudithook(die)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_save_killed_at_any_moment_leaves_a_network(tmp_path):
    old, new = trained(), trained(embedding_dim=16, layout="full")
    for number in range(100):
        folder = tmp_path / str(number)
        old.save_pretrained(folder)
        done = killed_at(number, folder, lambda folder=folder: new.save_pretrained(folder))
        found = ResNet3d.from_pretrained(folder)
        match = new if found.embedding_dim == 16 else old
        torch.testing.assert_close(found(CLIPS).embedding, match(CLIPS).embedding)
        if done:
            break
    assert 5 < number < 99
    assert match is new


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (without_any_config, FileNotFoundError, "must stand beside the weights"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), ValueError, "must be JSON"),
        (
            lambda folder: edit(folder, "clips", {"num_frames": 10**9}),
            ValueError,
            "num_frames of config.json must be a",
        ),
        (lambda folder: edit(folder, "clips", [8]), ValueError, "clips of config.json must be a JSON object"),
        (lambda folder: edit(folder, "block_counts", [3, 10**7, 6, 3]), ValueError, "block_counts must be a whole"),
        (lambda folder: edit(folder, "dropout", "half"), ValueError, "dropout must be a number from 0 to 1"),
        (lambda folder: edit(folder, "time_kernel", "3"), ValueError, "time_kernel must be a number, or a list"),
        (lambda folder: (folder / "config.json").write_text("{"), ValueError, "must be JSON"),
        (lambda folder: (folder / "config.json").write_text('{"block": "flat"}'), ValueError, "block must be one of"),
        (lambda folder: (folder / "model.safetensors").unlink(), FileNotFoundError, "must name an existing file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678"), ValueError, "is text, not tensors"),
        (lambda folder: (folder / "config.json").write_text("{}"), ValueError, "wholly"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, change, error, message):
    ResNet3d(**TINY).save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(error, match=message):
        ResNet3d.from_pretrained(tmp_path)


def test_an_unknown_option_is_refused(tmp_path):
    ResNet3d(**TINY).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="colour"):
        ResNet3d.from_pretrained(tmp_path, colour="red")


def test_options_that_are_no_plain_data_cannot_be_saved(tmp_path):
    model = FramewiseNet(TinyImageNet())
    with pytest.raises(ValueError, match="backbone must be plain data"):
        model.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
