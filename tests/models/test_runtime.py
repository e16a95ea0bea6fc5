"""The networks and blocks under everything that users run them with."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nl3d import NonLocalBlock3d, ReIDHead, SeparableConv3d
from nl3d.models.framewise import FramewiseNet
from nl3d.models.resnet3d import ResNet3d
from tests import oracles
from tests.models.test_framewise import TinyImageNet

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
TINY = {"block_counts": (1, 1, 1, 1), "base_width": 4, "embedding_dim": 8, "num_classes": 5}

NETWORKS = {
    "separable": lambda: ResNet3d(**TINY, non_local={"layer2": (0,)}, time_padding="replicate"),
    "i3d": lambda: ResNet3d(**TINY, layout="i3d", layer1_time_pool=2, non_local={"layer2": (0,)}),
    "full": lambda: ResNet3d(**TINY, layout="full", block="basic", pool="gem", head="bnneck", shortcut="pad"),
    "gaussian": lambda: ResNet3d(**TINY, non_local={"layer2": (0,)}, non_local_mode="gaussian"),
    "dot_product": lambda: ResNet3d(
        **TINY, non_local={"layer2": (0,)}, non_local_mode="dot_product", non_local_subsample="before"
    ),
    "concatenation": lambda: ResNet3d(
        **TINY, non_local={"layer2": (0,)}, non_local_mode="concatenation", non_local_time_window=2
    ),
    "rnn": lambda: FramewiseNet(TinyImageNet(), aggregation="rnn", rnn_channels=4, num_classes=5),
    "attention": lambda: FramewiseNet(TinyImageNet(), aggregation="attention", num_classes=5),
}

BLOCKS = {
    "separable": (lambda: SeparableConv3d(4, 6, stride=(1, 2, 2)), (2, 4, 3, 8, 6)),
    "non_local": (lambda: NonLocalBlock3d(4, subsample="after"), (2, 4, 3, 8, 6)),
    "head": (lambda: ReIDHead(4, 6, num_classes=3), (2, 4, 3, 8, 6)),
}


def network(name, device="cpu"):
    return oracles.randomise(NETWORKS[name]()).eval().to(device)


def clips_for(device="cpu", batch=2):
    return torch.rand(batch, 3, 4, 64, 32).to(device)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_compiles_to_one_graph(name, device):
    model, clips = network(name, device), clips_for(device)
    # the eager backend takes the same graph without minutes of code generation; the first network pays them in full
    backend = "inductor" if name == "separable" else "aot_eager"
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for got, wanted in zip(compiled(clips), model(clips), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["separable", "concatenation"])
def test_compiles_for_training(name):
    model, clips = network(name).train(), clips_for()
    model.head.dropout.p = 0.0
    twin = copy.deepcopy(model)
    torch.compile(model, fullgraph=True, backend="aot_eager")(clips).logits.square().sum().backward()
    twin(clips).logits.square().sum().backward()
    for got, wanted in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_exports_with_a_dynamic_batch(name):
    model = network(name)
    program = torch.export.export(model, (clips_for(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (2, 5):
        clips = clips_for(batch=batch)
        for got, wanted in zip(program.module()(clips), model(clips), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_compile_and_export(name):
    make, shape = BLOCKS[name]
    block, x = oracles.randomise(make()).eval(), torch.randn(shape)
    wanted = block(x)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="aot_eager")(x), wanted)
    program = torch.export.export(block, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(x), wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NETWORKS)
def test_autocast_follows_float32(name, dtype, device):
    model, clips = network(name, device), clips_for(device)
    wanted = model(clips).features
    with torch.autocast(device, dtype):
        got = model(clips).features
    assert (got.float() - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["separable", "i3d", "full"])
def test_channels_last(name, device):
    model, clips = network(name, device), clips_for(device)
    wanted = model(clips).embedding
    model, clips = model.to(memory_format=torch.channels_last_3d), clips.to(memory_format=torch.channels_last_3d)
    if device == "cuda":  # on a CPU, PyTorch picks kernels by size and threads, and some give the other layout back
        assert model.forward_features(clips).is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(model(clips).embedding, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.parametrize("name", NETWORKS)
def test_cuda_equals_cpu(name):
    model, clips = network(name).double(), clips_for().double()
    wanted = model(clips)
    for got, value in zip(model.cuda()(clips.cuda()), wanted, strict=True):
        torch.testing.assert_close(got.cpu(), value)


def _ddp_worker(rank, path, state, clips, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    model = ResNet3d(**TINY, non_local={"layer2": (0,)}, dropout=0.0)
    model.load_state_dict(state)
    parallel = DistributedDataParallel(model.eval())  # fixed norms: gradients then average exactly
    parallel(clips[rank : rank + 1]).logits.square().sum().backward()
    if rank == 0:
        torch.save([parameter.grad for parameter in model.parameters()], results)
    torch.distributed.destroy_process_group()


def test_distributed_gradients_are_those_of_the_whole_batch(tmp_path):
    model = oracles.randomise(ResNet3d(**TINY, non_local={"layer2": (0,)}, dropout=0.0)).eval()
    clips = clips_for()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(
        _ddp_worker, (tmp_path / "store", model.state_dict(), clips, tmp_path / "gradients"), nprocs=2
    )
    (model(clips).logits.square().sum() / 2).backward()
    gradients = torch.load(tmp_path / "gradients", weights_only=True)
    for got, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-5)


def test_meta_device_makes_no_numbers():
    with torch.device("meta"):
        model = ResNet3d(non_local={"layer2": (1, 3), "layer3": (1, 3, 5)}, num_classes=625)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.eval()(torch.rand(1, 3, 8, 256, 128, device="meta")).logits.shape == (1, 625)


def test_copies_and_pickles():
    model = network("separable")
    clips = clips_for()
    torch.testing.assert_close(copy.deepcopy(model)(clips), model(clips))
    assert isinstance(nn.Sequential(model)(clips).logits, torch.Tensor)
