import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nl3d.layers.non_local import NonLocalBlock3d
from nl3d.models.options import KEYWORDS, ResNet3dOptions
from nl3d.models.resnet3d import ResNet3d
from tests import oracles

TINY = {"block_counts": (1, 2, 2, 1), "base_width": 4, "embedding_dim": 8}


def oracle(model, clips, *, strides, pool, time_pool=1, relu_stem=True):
    """The network written out over its own tensors: every convolution as a full kernel, every norm by hand.

    ``strides`` gives the ``(t, h, w)`` of each stage's first block; ``pool`` the stem's kernel, stride and padding.
    """
    tensors = model.state_dict()

    def conv(name, x, stride=(1, 1, 1)):
        if f"{name}.temporal.weight" in tensors:
            temporal, spatial = tensors[f"{name}.temporal.weight"], tensors[f"{name}.spatial.weight"]
            weight = torch.einsum("omhw,mit->oithw", spatial[:, :, 0], temporal[..., 0, 0])
        else:
            weight = tensors[f"{name}.weight"]
        return F.conv3d(x, weight, stride=stride, padding=[size // 2 for size in weight.shape[2:]])

    def norm(name, x):
        mean, var, gain, shift = (
            tensors[f"{name}.{part}"].view(1, -1, 1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + shift

    def shortcut(name, x, stride, channels):
        if f"{name}.downsample.0.weight" in tensors:
            return norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride))
        x = x[:, :, :: stride[0], :: stride[1], :: stride[2]]
        missing = x.new_zeros(x.shape[0], channels - x.shape[1], *x.shape[2:])
        return torch.cat([x, missing], dim=1)

    def block(name, x, stride):
        t, h, w = stride
        bottleneck = f"{name}.conv3.weight" in tensors
        i3d = bottleneck and f"{name}.conv2.weight" in tensors and tensors[f"{name}.conv2.weight"].shape[2] == 1
        if bottleneck:
            first, second = ((t, 1, 1), (1, h, w)) if i3d else ((1, 1, 1), stride)
        else:
            first, second = stride, (1, 1, 1)
        y = norm(f"{name}.bn1", conv(f"{name}.conv1", x, first)).relu()
        y = norm(f"{name}.bn2", conv(f"{name}.conv2", y, second))
        if bottleneck:
            y = norm(f"{name}.bn3", conv(f"{name}.conv3", y.relu()))
        return (y + shortcut(name, x, stride, y.shape[1])).relu()

    x = norm("bn1", conv("conv1", clips, model.conv1.stride))
    x = F.max_pool3d(x.relu() if relu_stem else x, *pool)
    for index in range(4):
        number = 0
        while any(name.startswith(f"layer{index + 1}.{number}.") for name in tensors):
            x = block(f"layer{index + 1}.{number}", x, strides[index] if number == 0 else (1, 1, 1))
            attention = getattr(model, f"layer{index + 1}")._modules.get(f"non_local{number}")
            x = x if attention is None else oracles.non_local(attention, x)
            number += 1
        if index == 0 and time_pool > 1:
            x = F.max_pool3d(x, (time_pool, 1, 1))
    return x


PLAIN = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
STEM = ((1, 3, 3), (1, 2, 2), (0, 1, 1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layout": "separable", "non_local": {"layer2": (1,), "layer3": (0, 1)}}, {}),
        ({"layout": "separable", "block": "basic"}, {}),
        ({"layout": "full", "time_kernel": 5, "stem_time_kernel": 1}, {}),
        ({"layout": "full", "block": "basic", "last_stride": 1}, {"strides": (*PLAIN[:3], (1, 1, 1))}),
        ({"layout": "i3d", "layer1_time_pool": 2}, {"time_pool": 2}),
        ({"layout": "i3d", "block": "basic"}, {}),
        (
            {
                "layout": "i3d",
                "time_strides": (1, 2, 1, 1),
                "time_kernel": ((3,), (3, 1), (1, 3), (1,)),
                "stem_time_kernel": 5,
            },
            {"strides": (PLAIN[0], (2, 2, 2), *PLAIN[2:])},
        ),
        (
            {
                "layout": "full",
                "shortcut": "pad",
                "time_strides": (1, 2, 2, 2),
                "stem_pool_kernel": 3,
                "stem_pool_stride": 2,
                "stem_pool_padding": 1,
            },
            {"strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)), "pool": (3, 2, 1)},
        ),
        ({"stem_relu": False, "stem_stride": (2, 2, 2), "layout": "separable"}, {"relu_stem": False}),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)  # fmt: skip
def test_equals_the_network_written_out(options, expected):
    model = oracles.randomise(ResNet3d(**TINY, **options).double()).eval()
    clips = torch.randn(2, 3, 5, 40, 24, dtype=torch.float64)
    wanted = oracle(model, clips, **{"strides": PLAIN, "pool": STEM, **expected})
    torch.testing.assert_close(model.forward_features(clips), wanted)
    torch.testing.assert_close(model(clips).features, wanted.mean((2, 3, 4)))


def test_default_is_the_paper_s_network():
    with torch.device("meta"):
        model = ResNet3d(non_local={"layer2": (1, 3), "layer3": (1, 3, 5)})
    assert [
        len([b for b in getattr(model, s) if not isinstance(b, NonLocalBlock3d)]) for s in ("layer1", "layer2")
    ] == [3, 4]
    assert list(dict(model.layer3.named_children())) == [
        "0",
        "1",
        "non_local1",
        "2",
        "3",
        "non_local3",
        "4",
        "5",
        "non_local5",
    ]
    assert model.layer2.non_local3.inner_channels == 256
    assert model.layer1[0].conv2.temporal.weight.shape == (64, 64, 3, 1, 1)
    assert model.conv1.weight.shape == (64, 3, 3, 7, 7)
    assert (model.num_features, model.embedding_dim) == (2048, 512)


def test_i3d_layout_puts_time_where_wang_et_al_do():
    with torch.device("meta"):
        model = ResNet3d(layout="i3d")
    kernels = {s: [b.conv1.kernel_size[0] for b in getattr(model, s)] for s in ("layer1", "layer2", "layer3", "layer4")}
    assert kernels == {"layer1": [3, 3, 3], "layer2": [3, 1, 3, 1], "layer3": [3, 1, 3, 1, 3, 1], "layer4": [1, 3, 1]}
    assert model.conv1.kernel_size == (5, 7, 7)
    assert all(block.conv2.kernel_size[0] == 1 for block in model.layer1)


def test_names_are_those_of_the_image_network():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        image = timm.create_model("resnet50").state_dict()
        names = set(ResNet3d(layout="full").state_dict())
    wanted = {name for name in image if not name.startswith("fc.")}
    assert {name for name in names if not name.startswith("head.")} == wanted


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 33, 17), (9, 64, 32)], ids=str)
@pytest.mark.parametrize("layout", ["separable", "i3d", "full"])
def test_any_clip_size(layout, shape):
    model = ResNet3d(**TINY, layout=layout, non_local={"layer2": (1,)}, num_classes=3).eval()
    out = model(torch.rand(2, 3, *shape))
    assert [tuple(value.shape) for value in out] == [(2, 128), (2, 8), (2, 3)]


def test_in_channels_and_classifier():
    model = ResNet3d(**TINY, in_channels=1, num_classes=3)
    model.reset_classifier(5)
    assert (model.num_classes, model.get_classifier().out_features) == (5, 5)
    assert model(torch.rand(2, 1, 2, 32, 16)).logits.shape == (2, 5)


def test_forward_head_and_embed():
    model = oracles.randomise(ResNet3d(**TINY, num_classes=3)).eval()
    clips = torch.rand(2, 3, 2, 32, 16)
    out = model(clips)
    maps = model.forward_features(clips)
    torch.testing.assert_close(model.forward_head(maps).logits, out.logits)
    torch.testing.assert_close(model.forward_head(maps, pre_logits=True), out.embedding)
    torch.testing.assert_close(model.embed(clips), out.embedding)


def test_grad_checkpointing_changes_nothing_but_memory():
    model = oracles.randomise(ResNet3d(**TINY, num_classes=3, dropout=0.0, non_local={"layer2": (0,)})).train()
    clips = torch.rand(2, 3, 2, 32, 16)
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(clips).logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_fresh_non_local_blocks_change_nothing():
    plain = oracles.randomise(ResNet3d(**TINY)).eval()
    with_blocks = ResNet3d(**TINY, non_local={"layer2": (0, 1)}).eval()
    missing = with_blocks.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(".non_local" in name for name in missing)
    clips = torch.rand(1, 3, 4, 32, 16)
    torch.testing.assert_close(with_blocks(clips).embedding, plain(clips).embedding, rtol=0, atol=0)


def test_every_parameter_learns():
    model = oracles.randomise(ResNet3d(**TINY, num_classes=3, non_local={"layer3": (0,)}))
    model(torch.rand(4, 3, 4, 64, 32)).logits.square().sum().backward()
    silent = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    # a constant in every query or key is nothing to a softmax over keys, a constant before a norm nothing to the norm
    assert set(silent) <= {"layer3.non_local0.phi.bias", "head.fc.bias"}


def test_starts_with_he_weights():
    model = ResNet3d(block_counts=(1, 1, 1, 1))
    weight = model.layer2[0].conv3.weight
    assert weight.std().item() == pytest.approx((2 / weight.shape[0]) ** 0.5, rel=0.05)
    assert all(
        m.weight.eq(1).all() for n, m in model.named_modules() if isinstance(m, nn.BatchNorm3d) and "non_local" not in n
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "2d"}, "layout must be one of 'separable', 'i3d', 'full', 'appearance_preserving', got '2d'"),
        ({"block": "wide"}, "block must be one of"),
        ({"head": "mlp"}, "head must be one of"),
        ({"shortcut": "A"}, "shortcut must be one of 'conv', 'pad'"),
        ({"block_counts": (3, 4, 6)}, r"block_counts must be four numbers, one per stage, got \(3, 4, 6\)"),
        ({"time_kernel": 2}, "time_kernel must be odd, got 2"),
        ({"time_kernel": ((3,), (3,), (3,), (3,))}, "time_kernel must name one kernel for each"),
        ({"time_kernel": ((3,), (3, 1), (3, 1), (1,))}, "stem_time_kernel must be given"),
        ({"stem_time_kernel": 4}, "stem_time_kernel must be odd"),
        ({"last_stride": 0}, "last_stride must be a whole number from 1 to 64, got 0"),
        ({"base_width": 0}, "base_width must be a whole number from 1 to"),
        ({"block_counts": (3, 4, 10**7, 3)}, "block_counts must be a whole number from 1 to 1000, got 10000000"),
        ({"block_counts": "3463"}, "block_counts must be four numbers"),
        ({"stem_pool_stride": 10**9}, "stem_pool_stride must be a whole number from 1 to 1000"),
        ({"base_width": True}, "base_width must be a whole number"),
        ({"embedding_dim": 2.5}, "embedding_dim must be a whole number"),
        ({"non_local": {"layer2": 1}}, r"as \{'layer2': \(1, 3\)\}, got"),
        ({"non_local_time_window": {"layer2": 0}}, "non_local_time_window must be a whole number"),
        ({"non_local": {"layer5": (1,)}}, "non_local's stage must be one of 'layer1'"),
        ({"non_local": {"layer2": (2,)}}, r"non_local must name blocks 0 to 1 of layer2, got \(2,\)"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet3d(**{**TINY, **options})


def test_refuses_clips():
    model = ResNet3d(**TINY).eval()
    with pytest.raises(ValueError, match=r"use clips.transpose\(1, 2\)"):
        model(torch.rand(1, 4, 3, 32, 16))
    with pytest.raises(ValueError, match="must be finite"):
        model(torch.full((1, 3, 1, 32, 16), torch.nan))


@pytest.mark.parametrize(
    "options",
    [
        {"layer1_time_pool": 2},
        {
            "layer1_time_pool": 2,
            "stem_stride": 2,
            "stem_pool_kernel": (2, 3, 3),
            "stem_pool_stride": 2,
            "stem_pool_padding": 0,
        },
        {"stem_pool_kernel": 3, "stem_pool_stride": 2, "stem_pool_padding": 1, "time_strides": (1, 2, 2, 2)},
    ],
)
def test_least_number_of_frames(options):
    model = ResNet3d(**TINY, **options).eval()
    assert model(torch.rand(1, 3, model.min_frames, 64, 32)).embedding.shape == (1, 8)
    if model.min_frames > 1:
        too_few = model.min_frames - 1
        with pytest.raises(ValueError, match=f"at least {model.min_frames} frames, .*got {too_few}"):
            model(torch.rand(1, 3, too_few, 64, 32))
        model.min_frames = 1  # and it would be too few indeed
        with pytest.raises(RuntimeError):
            model(torch.rand(1, 3, too_few, 64, 32))


def test_options_come_flat_or_in_parts():
    keywords = {**TINY, "stem_stride": 2, "non_local": {"layer2": (1,)}, "non_local_mode": "gaussian", "head": "bnneck"}
    model = ResNet3d(**keywords)
    options = ResNet3dOptions.from_flat(**keywords)
    assert model.options == options == ResNet3dOptions.from_flat(**options.flat())
    assert options.stem.stride == (2, 2, 2)
    assert options.non_local.places == {"layer2": (1,)}
    assert ResNet3d(options).state_dict().keys() == model.state_dict().keys()
    assert set(KEYWORDS) == set(options.flat())
    with pytest.raises(TypeError, match="got both, among them 'block'"):
        ResNet3d(options, block="basic")
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        ResNet3d(colour="red")
