import copy
import pickle

import pytest
import timm
import torch
from torch import nn

import nl3d
from nl3d import optimize_for_inference
from nl3d.models.fingerprint import fingerprint
from nl3d.models.framewise import FramewiseNet
from nl3d.optimize.convolution import FormedConvolution, form_convolutions, forms_of, set_form
from nl3d.optimize.fold import fold_norms
from tests import oracles

NETWORKS = {
    **{
        f"{block} {layout}": {"block": block, "layout": layout}
        for block in ("bottleneck", "basic")
        for layout in ("separable", "i3d", "full")
    },
    "pooled first": {"non_local_subsample": "before", "non_local_scale": True},
    "pooled last": {"non_local_subsample": "after", "non_local_mode": "dot_product"},
    "gaussian": {"non_local_mode": "gaussian", "shortcut": "pad"},
    "concatenation": {"non_local_mode": "concatenation", "non_local_time_window": 2},
    "replicated": {"time_padding": "replicate", "stem_relu": False, "head": "bnneck", "projection_dim": 8},
    "strided": {"time_strides": (1, 2, 1, 1), "layer1_time_pool": 2, "head": "linear", "num_classes": 3},
}


def network(**options):
    """A small network past its zero and identity starts."""
    non_local = {"layer2": (0,), "layer3": (0,)}
    torch.manual_seed(0)
    model = nl3d.ResNet3d(**{"block_counts": (1, 1, 1, 1), "base_width": 4, "non_local": non_local, **options})
    return oracles.randomise(model).eval()


def assert_equal(fast, model, clips):
    with torch.no_grad():
        wanted = model(clips)
    found = fast(clips)
    for one, other in zip(wanted, found, strict=True):
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("measured", [False, True])
def test_gives_the_outputs_of_the_original(options, measured):
    model, clips = network(**options), torch.randn(2, 3, 4, 32, 16)
    if not measured:
        model.pretrained_cfg |= {"input_size": (3, 32, 16), "num_frames": 4}
    before = copy.deepcopy(model.state_dict())
    fast = optimize_for_inference(model, clips if measured else None)
    assert_equal(fast, model, clips)
    assert_equal(fast, model, torch.randn(1, 3, 6, 48, 20))  # forms hold at other sizes
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d)]
    left = 1 if options.get("head") == "bnneck" else 0  # its norm precedes its linear map
    assert len(fast.optimization.folded_norms) == len(norms) - left
    assert type(fast.head) is type(model.head)
    assert fast.optimization.departure < 1e-5
    assert (fast.optimization.seconds_before is not None) == measured
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "resnetv2_50d_gn"])
def test_frame_wise_and_inflated_networks(name):
    image = timm.create_model(name, num_classes=0)
    clips = torch.randn(1, 3, 3, 64, 32)
    for model in (FramewiseNet(image), nl3d.InflatedReID(name)):
        oracles.randomise(model).eval()
        assert_equal(optimize_for_inference(model, clips), model, clips)


def test_every_form_gives_the_convolution():
    layers = [
        nn.Conv3d(4, 6, 1),
        nn.Conv3d(4, 6, 1, stride=(1, 2, 2)),
        nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0)),
        nn.Conv3d(4, 6, (5, 1, 1), padding=(2, 0, 0), bias=False),
        nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1), stride=(1, 2, 1)),
        nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 2, 2), dilation=(1, 2, 2), groups=2),
        nn.Conv3d(4, 6, (3, 3, 3), padding=1, stride=(2, 1, 1)),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 1),
    ]
    seen = set()
    for layer in layers:
        for frames in (1, 2, 5):
            x = torch.randn(2, 4, frames, 6, 5)[(slice(None), slice(None), 0) if len(layer.kernel_size) == 2 else ...]
            formed = copy.deepcopy(layer)
            form_convolutions(formed)
            for relu in (False, True):
                formed.relu = relu
                with torch.no_grad():
                    wanted = layer(x).relu() if relu else layer(x)
                    for form in forms_of(formed, x.device):
                        set_form(formed, form)
                        torch.testing.assert_close(formed(x), wanted)
                        seen.add(form)
    assert seen == {"onednn", "direct", "frames", "matmul", "shifted"}


def test_folds_only_what_it_may():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)
            self.twice, self.bn_a, self.bn_b = nn.Conv3d(4, 4, 1), nn.BatchNorm3d(4), nn.BatchNorm3d(4)
            self.alone = nn.BatchNorm3d(4)

        def forward(self, x):
            x = self.alone(self.bn(self.conv(x)).relu())
            return self.bn_a(self.twice(x)) + self.bn_b(self.twice(x))

    model, clips = oracles.randomise(Net()).eval(), torch.randn(2, 3, 2, 4, 4)
    fast = optimize_for_inference(model, clips)
    assert fast.optimization.folded_norms == ("bn",)
    torch.testing.assert_close(fast(clips), model(clips), rtol=1e-4, atol=1e-5)
    training = Net()
    assert fold_norms(training, clips) == []


def test_same_bits_without_a_sample():
    model, clips = network(), torch.randn(2, 3, 4, 64, 32)
    first, second = optimize_for_inference(model), optimize_for_inference(model)
    assert torch.equal(first(clips).embedding, second(clips).embedding)
    assert set(first.optimization.forms) == {"onednn"}


def test_keeps_class_attributes_and_fingerprint():
    model, clips = network(), torch.randn(2, 3, 4, 32, 16)
    fast = optimize_for_inference(model, clips)
    assert isinstance(fast, nl3d.ResNet3d)
    assert fast.processor == model.processor
    assert fingerprint(fast) == fingerprint(model)
    again = pickle.loads(pickle.dumps(fast))
    assert torch.equal(again(clips).embedding, fast(clips).embedding)
    assert str(again.optimization) == str(fast.optimization)
    assert "batch norms folded" in str(fast.optimization)
    assert any(isinstance(module, FormedConvolution) for module in fast.modules())
    assert not any(isinstance(module, FormedConvolution) for module in model.modules())


def test_refuses_to_train_and_to_save(tmp_path):
    fast = optimize_for_inference(network(), torch.randn(1, 3, 4, 32, 16))
    with pytest.raises(ValueError, match="mode must be False for an optimised network"):
        fast.train()
    with pytest.raises(ValueError, match="an optimised network cannot be saved; save the original"):
        fast.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="an optimised network cannot be loaded into"):
        fast.load_state_dict({})
    assert not any(tmp_path.iterdir())


def test_refuses_a_departure_a_bad_option_and_a_missing_sample():
    model, clips = network(), torch.randn(1, 3, 4, 32, 16)
    with pytest.raises(ValueError, match="tolerance must allow what rounding does, got 1e-12, but outputs depart by"):
        optimize_for_inference(model, clips, tolerance=1e-12)
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        optimize_for_inference(model, clips, tolerance=0)
    with pytest.raises(ValueError, match="precision must be one of 'float32', 'bfloat16', 'auto', got 'half'"):
        optimize_for_inference(model, clips, precision="half")
    with pytest.raises(ValueError, match="sample must be given for Conv3d, whose pretrained_cfg names no input_size"):
        optimize_for_inference(nn.Conv3d(3, 4, 1))


def test_bfloat16_follows_float32_or_is_refused(monkeypatch):
    model, clips = network(), torch.randn(2, 3, 4, 32, 16)
    model.pretrained_cfg |= {"input_size": (3, 32, 16), "num_frames": 4}
    fast = optimize_for_inference(model, precision="bfloat16", tolerance=0.2)
    assert fast.optimization.precision == "bfloat16"
    assert 1e-5 < fast.optimization.departure < 0.2
    assert fast(clips).embedding.dtype == torch.float32
    monkeypatch.setattr("nl3d.optimize.inference.BFLOAT16_TOLERANCE", 1e-6)
    with pytest.raises(ValueError, match="precision must be 'float32' for this network on this device: outputs in bf"):
        optimize_for_inference(model, precision="bfloat16")
    monkeypatch.setattr("nl3d.optimize.inference._computes_bfloat16", lambda device: True)
    assert optimize_for_inference(model, precision="auto").optimization.precision == "float32"


def test_a_wrong_form_is_refused(monkeypatch):
    monkeypatch.setitem(
        __import__("nl3d.optimize.convolution").optimize.convolution._FORMS,
        "onednn",
        lambda layer, x: layer.form and torch.nn.functional.conv3d(x, layer.weight, None, layer.stride, layer.padding),
    )
    with pytest.raises(ValueError, match="outputs depart by"):
        optimize_for_inference(network(block="bottleneck"))


@pytest.mark.cuda
def test_on_a_gpu():
    model, clips = network().cuda(), torch.randn(2, 3, 4, 64, 32, device="cuda")
    fast = optimize_for_inference(model, clips, tolerance=1e-2)
    assert "onednn" not in fast.optimization.forms
    torch.testing.assert_close(fast(clips).embedding, model(clips).embedding, rtol=1e-2, atol=1e-2)
