"""Convolutions that CPUs compute wrongly in bfloat16. A fake broken kernel makes the tests bite on every machine."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import nl3d
from nl3d import SeparableConv3d
from nl3d.data.tracklets import Tracklet
from nl3d.layers.precision import Conv3d, float32_on_small_maps
from nl3d.losses import ReIDLoss
from nl3d.models.framewise import FramewiseNet
from nl3d.models.resnet3d import ResNet3d
from nl3d.training.step import backward

CPU = torch.device("cpu")
aten = torch.ops.aten


def is_broken(x, weight):
    """The broken geometry: bfloat16 on the CPU, and a kernel larger than its input on some axis."""
    larger = any(kernel > max(size, 1) for kernel, size in zip(weight.shape[2:], x.shape[2:], strict=True))
    return x.dtype == torch.bfloat16 and x.device == CPU and larger


class BrokenKernel(TorchDispatchMode):
    """Broken convolutions give NaN, forwards and backwards, below autocast and autograd."""

    hits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is aten.convolution.default and is_broken(*args[:2]):
            self.hits += 1
            return torch.full_like(out, torch.nan)
        if func is aten.convolution_backward.default and is_broken(*args[1:3]):
            self.hits += 1
            return tuple(None if grad is None else torch.full_like(grad, torch.nan) for grad in out)
        return out


class ImageNet(nn.Module):
    """Somebody's network, with a convolution as a module and one as a function."""

    num_features = 6
    in_channels = 3
    pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 8, 4)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))

    def forward_features(self, images):
        return F.conv2d(self.conv1(images).relu(), self.weight, None, stride=(2, 2), padding=1)

    def forward(self, images):
        return self.forward_features(images).mean((2, 3))


class OnClips(ImageNet):
    def forward(self, clips):
        return super().forward(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(clips), -1)).mean(1)


RESNET = {"block_counts": (1, 1, 1, 1), "base_width": 4, "embedding_dim": 8, "num_classes": 5}
SMALLEST = (2, 3, 2, 32, 16)  # layer3's map is 2x1
NETWORKS = {
    "separable": lambda: ResNet3d(**RESNET, non_local={"layer2": (0,)}),
    "replicate": lambda: ResNet3d(**RESNET, time_padding="replicate"),
    "i3d": lambda: ResNet3d(**RESNET, layout="i3d"),
    "full, basic": lambda: ResNet3d(**RESNET, layout="full", block="basic"),
    "rnn": lambda: FramewiseNet(ImageNet(), aggregation="rnn", rnn_channels=4, num_classes=5),
    "timm, framewise": lambda: FramewiseNet("test_resnet", num_classes=5),
    "timm, inflated": lambda: nl3d.inflated("test_resnet", num_classes=5),
    "timm, inflated, same": lambda: nl3d.inflated("test_efficientnet", num_classes=5),
    "timm, standardised": lambda: nl3d.inflated("test_nfnet", num_classes=5),
    "timm, head": lambda: nl3d.reid_model("test_resnet", num_classes=5),
}


def shape_of(name):
    return (2, 3, 2, 8, 4) if name == "rnn" else SMALLEST


def tensor_of(output):
    return output if isinstance(output, torch.Tensor) else output.embedding


def check_close(got, wanted):
    assert got.isfinite().all()
    assert (got.float() - wanted).norm() < 0.1 * wanted.norm()


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv3d(3, 4, 3, (1, 2, 2), 1)], ids=str)
def test_the_fake_bites(layer):
    x = torch.rand(1, 3, *([4] * (layer.weight.ndim - 4)), 3, 2)
    with BrokenKernel(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).isnan().all()
    with BrokenKernel():
        assert layer.bfloat16()(x.bfloat16()).isnan().all()
        assert layer.float()(x).isfinite().all()


@pytest.mark.parametrize("whole", [False, True], ids=["autocast", "bfloat16 network"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, whole):
    torch.manual_seed(0)
    model, clips = NETWORKS[name]().eval(), torch.rand(shape_of(name))
    wanted = tensor_of(model(clips)).detach()
    with BrokenKernel() as broken, torch.autocast("cpu", torch.bfloat16, enabled=not whole):
        got = tensor_of(model.bfloat16()(clips.bfloat16()) if whole else model(clips))
        got.float().sum().backward()
    check_close(got, wanted)
    assert broken.hits == 0
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_layers_and_stages_by_themselves():
    model = ResNet3d(**RESNET).eval()
    x = torch.rand(2, 32, 2, 4, 2)
    wanted = model.layer3(x)
    layer, frames = SeparableConv3d(4, 6, stride=(1, 2, 2)), torch.rand(1, 4, 3, 4, 2)
    with BrokenKernel(), torch.autocast("cpu", torch.bfloat16):
        check_close(model.layer3(x), wanted)
        assert layer(frames).isfinite().all()


def test_feature_maps_of_timm():
    import timm

    nl3d.register_timm()
    model = timm.create_model("resnet3d18", features_only=True, base_width=4).eval()
    with BrokenKernel(), torch.autocast("cpu", torch.bfloat16):
        assert all(feature.isfinite().all() for feature in model(torch.rand(SMALLEST)))


def test_anybodys_network_in_the_embedder():
    frames = torch.randint(0, 255, (8, 64, 32, 3), dtype=torch.uint8).numpy()
    options = {"num_frames": 2, "size": (8, 4), "output_layer": "features"}
    tracklets, model = [Tracklet(list(frames), pid=0, camid=0, name="a")], OnClips()
    wanted = nl3d.embed(tracklets, model, **options)
    with BrokenKernel():
        check_close(nl3d.embed(tracklets, model, amp=True, **options).embeddings, wanted.embeddings)


@pytest.mark.parametrize("mining", ["micro", "batch"])
@pytest.mark.parametrize(
    ("name", "checkpointing"), [("separable", False), ("separable", True), ("timm, framewise", False)]
)
def test_training_step(name, checkpointing, mining):
    model = NETWORKS[name]().train()
    model.set_grad_checkpointing(checkpointing)
    batches = [(torch.rand(4, 3, 2, 32, 16), torch.tensor([0, 0, 1, 1])) for _ in range(2)]
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)  # as accelerate does
    with BrokenKernel() as broken:
        backward(Accelerator(cpu=True), model, ReIDLoss(), batches, mining=mining)
    assert broken.hits == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "separable",
        "timm, framewise",
        pytest.param(
            "timm, inflated",
            marks=pytest.mark.skipif(torch.__version__ < "2.7", reason="cannot compile under a function mode"),
        ),
    ],
)
def test_compiled_graphs_hold_no_such_convolution(name):
    torch.compiler.reset()
    model, clips = NETWORKS[name]().eval(), torch.rand(SMALLEST)
    broken, seen = [], []

    def look(graph, _):
        for node in graph.graph.nodes:
            if node.target is aten.convolution.default:
                seen.append(node)
                if is_broken(*(arg.meta["val"] for arg in node.args[:2])):
                    broken.append(node)
        return graph.forward

    wanted = tensor_of(model(clips))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        compiled = torch.compile(model, fullgraph=True, backend=aot_autograd(fw_compiler=look))
        check_close(tensor_of(compiled(clips)), wanted)
        assert seen
        assert not broken
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["separable", "timm, framewise"])
def test_exported_programs(name):
    model, clips = NETWORKS[name]().eval(), torch.rand(SMALLEST)
    wanted = tensor_of(model(clips))
    with torch.autocast("cpu", torch.bfloat16):
        program = torch.export.export(model, (clips,), strict=False)
    with BrokenKernel(), torch.autocast("cpu", torch.bfloat16):
        check_close(tensor_of(program.module()(clips)), wanted)
    plain = torch.export.export(model, (clips,), strict=False).module()  # exported in float32, run in bfloat16
    with BrokenKernel(), torch.autocast("cpu", torch.bfloat16), float32_on_small_maps(clips):
        check_close(tensor_of(plain(clips)), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("size", "stride", "in_doubt"),
    [
        ((8, 16, 8), (1, 2, 2), False),  # the last stage of 256x128
        ((8, 3, 2), (1, 2, 2), True),
        ((8, 3, 2), (1, 1, 1), True),
        ((8, 8, 8), (1, 1, 1), False),
        ((2, 8, 8), (1, 1, 1), True),
        ((6, 8, 8), (2, 1, 1), True),
    ],
)
def test_only_what_is_in_doubt_is_computed_in_float32(dtype, size, stride, in_doubt):
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is aten.convolution.default:
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    layer = Conv3d(4, 6, 3, stride=stride, padding=1).to(dtype)
    with Watch():
        assert layer(torch.rand(1, 4, *size, dtype=dtype)).dtype == dtype
        assert nn.Conv3d(4, 6, 1)(torch.rand(1, 4, *size)).dtype == torch.float32
    assert seen == [torch.float32 if dtype == torch.bfloat16 and in_doubt else dtype, torch.float32]


def test_arguments_may_come_in_any_form():
    x, weight = torch.rand(1, 4, 3, 2).bfloat16(), torch.rand(6, 4, 3, 3).bfloat16()
    wanted = F.conv2d(x.float(), weight.float(), stride=2, padding=1, dilation=1)
    calls = (
        lambda: F.conv2d(x, weight, None, 2, 1),
        lambda: F.conv2d(x, weight, stride=(2, 2), padding=(1, 1)),
        lambda: F.conv2d(input=x, weight=weight, stride=[2], padding=1),
        lambda: F.conv2d(x[0], weight, stride=2, padding=1)[None],
        lambda: torch.convolution(x, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1),
    )
    with BrokenKernel(), float32_on_small_maps(x):
        for call in calls:
            check_close(call(), wanted)
