import itertools

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nl3d import NonLocalBlock3d
from tests import oracles

MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")
VARIANTS = [
    (mode, subsample, scale)
    for mode, subsample, scale in itertools.product(MODES, (None, "before", "after"), (False, True))
    if not (scale and "gaussian" not in mode)
]


def awake(*args, **kwargs):
    """A block past its identity start."""
    return oracles.randomise(NonLocalBlock3d(*args, **kwargs).double()).eval()


@pytest.mark.parametrize(("mode", "subsample", "scale"), VARIANTS, ids=str)
def test_equals_the_map_of_all_pairs(mode, subsample, scale):
    block = awake(4, 3, mode=mode, subsample=subsample, scale=scale)
    clips = torch.randn(2, 4, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    out, expected = block(clips), oracles.non_local(block, clips)
    torch.testing.assert_close(out, expected)
    inputs = [clips, *block.parameters()]
    weights = torch.randn_like(out)
    gradients = torch.autograd.grad((out * weights).sum(), inputs)
    for gradient, wanted in zip(gradients, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize(("mode", "subsample", "scale"), VARIANTS, ids=str)
def test_attention_is_a_row_of_the_map(mode, subsample, scale):
    block = awake(4, mode=mode, subsample=subsample, scale=scale)
    clips = torch.randn(2, 4, 2, 4, 6, dtype=torch.float64)
    pairs, _ = oracles.non_local_map(block, clips)
    row = block.attention(clips, position=(1, 2, 3))
    height, width = (2, 3) if subsample else (4, 6)
    assert row.shape == (2, 2, height, width)
    torch.testing.assert_close(row.flatten(1), pairs[:, (1 * 4 + 2) * 6 + 3])


@pytest.mark.parametrize("mode", MODES)
def test_fresh_block_is_the_identity_and_can_learn(mode):
    block = NonLocalBlock3d(6, mode=mode)
    clips = torch.randn(2, 6, 2, 4, 4)
    torch.testing.assert_close(block(clips), clips, rtol=0, atol=0)
    assert block.inner_channels == 3
    block(clips).square().sum().backward()
    assert block.bn.weight.grad.abs().sum() > 0
    assert all(layer.weight.std() > 0 for layer in block.children() if isinstance(layer, nn.Conv3d))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (3, 1, 7)], ids=str)
@pytest.mark.parametrize("subsample", [None, "before", "after"])
def test_any_size(mode, shape, subsample):
    block = awake(4, mode=mode, subsample=subsample)
    clips = torch.randn(2, 4, *shape, dtype=torch.float64)
    assert block(clips).shape == clips.shape
    assert block.attention(clips, (0, 0, 0)).shape[1] == shape[0]


@pytest.mark.parametrize("mode", MODES)
def test_time_window_attends_within_it_only(mode):
    block = awake(4, mode=mode, time_window=2)
    clips = torch.randn(2, 4, 6, 3, 2, dtype=torch.float64)
    whole = awake(4, mode=mode)
    whole.load_state_dict(block.state_dict())
    by_window = torch.cat([whole(window) for window in clips.split(2, dim=2)], dim=2)
    torch.testing.assert_close(block(clips), by_window)
    row = block.attention(clips, (3, 1, 1))
    assert row[:, [0, 1, 4, 5]].abs().max() == 0
    torch.testing.assert_close(row[:, 2:4], whole.attention(clips[:, :, 2:4], (1, 1, 1)))
    with pytest.raises(ValueError, match="multiple of time_window=2 frames, got 5"):
        block(clips[:, :, :5])


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(mode):
    block = awake(2, mode=mode)
    clips = torch.randn(1, 2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, clips)


@pytest.mark.parametrize("inner_channels", [2, 4, 8])
@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian"])
def test_softmax_runs_on_the_kernel_without_a_map(mode, inner_channels):
    """The flash kernel refuses what it cannot do; outside of this context that would be a silent map of all pairs."""
    block = awake(4, inner_channels, mode=mode)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        block(torch.randn(1, 4, 2, 3, 3, dtype=torch.float64)).sum().backward()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("subsample", [None, "after"])
def test_no_tensor_as_large_as_the_map(mode, subsample):
    """The largest tensor that forward and backward save or make stays far below T*H*W squared."""
    block = NonLocalBlock3d(8, mode=mode, subsample=subsample)
    clips = torch.randn(1, 8, 4, 24, 16, requires_grad=True)
    positions = 4 * 24 * 16
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        block(clips).sum().backward()
    assert largest < positions * positions / 20


def test_subsample_orders_differ():
    before, after = awake(4, subsample="before"), awake(4, subsample="after")
    after.load_state_dict(before.state_dict())
    clips = torch.randn(1, 4, 2, 4, 4, dtype=torch.float64)
    assert (before(clips) - after(clips)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_autocast_follows_float32(mode, dtype):
    block = oracles.randomise(NonLocalBlock3d(8, mode=mode)).eval()
    clips = torch.randn(2, 8, 2, 6, 4)
    with torch.autocast("cpu", dtype):
        out = block(clips)
    torch.testing.assert_close(out.float(), block(clips), rtol=0.05, atol=0.1)


def test_parameter_names():
    names = {name.split(".")[0] for name in NonLocalBlock3d(4).state_dict()}
    assert names == {"theta", "phi", "g", "w_z", "bn"}
    assert {name.split(".")[0] for name in NonLocalBlock3d(4, mode="gaussian").state_dict()} == {"g", "w_z", "bn"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mode": "softmax"}, "mode must be one of 'embedded_gaussian'.*got 'softmax'"),
        ({"subsample": True}, "subsample must be one of None, 'before', 'after', got True"),
        ({"mode": "dot_product", "scale": True}, "scale must be False for mode 'dot_product'"),
        ({"inner_channels": 0}, "inner_channels must be at least 1, got 0"),
        ({"time_window": 0}, "time_window must be at least 1, got 0"),
    ],
)
def test_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NonLocalBlock3d(4, **kwargs)


def test_attention_refuses_a_position_outside():
    with pytest.raises(ValueError, match=r"position must be \(t, h, w\) within \(2, 4, 4\), got \(2, 0, 0\)"):
        NonLocalBlock3d(4).attention(torch.randn(1, 4, 2, 4, 4), position=(2, 0, 0))
