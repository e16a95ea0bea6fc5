"""Two real gloo processes against one process on the concatenated batch."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nl3d.losses import BatchHardTriplet, ReIDLoss
from tests import gloo

# No rank has a full set of triplets of its own: pids 2 and 9 are on both ranks, 5 and 7 on one each.
PIDS = torch.tensor([2, 9, 5, 5, 9, 2, 7, 7])


class Output(NamedTuple):
    features: Tensor
    embedding: Tensor
    logits: Tensor | None


def shares(split):
    return slice(0, split), slice(split, None)


def test_loss_and_gradients_equal_the_single_process_ones():
    gloo.run(_compare_triplets)


def _compare_triplets(rank):
    inputs = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    for split in (4, 5, 1):  # also unequal batches
        for options in ({}, {"reduction": "sum"}, {"margin": "soft"}):
            alone = copy.deepcopy(network)
            expected = BatchHardTriplet(**options)(alone(inputs), PIDS)
            expected.backward()
            share = shares(split)[rank]
            parallel = DistributedDataParallel(copy.deepcopy(network))
            loss = BatchHardTriplet(**options, gather=True)(parallel(inputs[share]), PIDS[share])
            loss.backward()
            assert expected > 0
            torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
            for one, other in zip(parallel.parameters(), alone.parameters(), strict=True):
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)
            _compare_embedding_gradients(inputs, share, options)
    _compare_in_half_precision(inputs, shares(3)[rank])
    _compare_compiled(inputs.float(), shares(4)[rank])


def _compare_embedding_gradients(inputs, share, options):
    """On each rank: the number of ranks times the single-process gradient."""
    leaf, local = inputs.clone().requires_grad_(), inputs[share].clone().requires_grad_()
    BatchHardTriplet(**options)(leaf, PIDS).backward()
    BatchHardTriplet(**options, gather=True)(local, PIDS[share]).backward()
    torch.testing.assert_close(local.grad, 2 * leaf.grad[share], rtol=1e-12, atol=0)


def _compare_in_half_precision(inputs, share):
    half = inputs.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = BatchHardTriplet(gather=True)(half[share], PIDS[share].int())
    assert torch.equal(loss, BatchHardTriplet()(half, PIDS))


def _compare_compiled(inputs, share):
    leaf, local = inputs.clone().requires_grad_(), inputs[share].clone().requires_grad_()
    expected = BatchHardTriplet()(leaf, PIDS)
    expected.backward()
    compiled = torch.compile(BatchHardTriplet(gather=True), fullgraph=True, backend="aot_eager")
    loss = compiled(local, PIDS[share])
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(local.grad, 2 * leaf.grad[share])


def test_reid_loss_averages_to_the_single_process_one():
    gloo.run(_compare_reid_losses)


def _compare_reid_losses(rank):
    inputs = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = nn.Linear(6, 10).double()
    alone, parallel = copy.deepcopy(network), DistributedDataParallel(copy.deepcopy(network))
    rows = alone(inputs)
    expected = ReIDLoss().parts(Output(rows, rows, rows), PIDS)
    expected.total.backward()
    share = shares(4)[rank]
    rows = parallel(inputs[share])
    parts = ReIDLoss(gather=True).parts(Output(rows, rows, rows), PIDS[share])
    parts.total.backward()
    torch.testing.assert_close(parts.triplet, expected.triplet)
    identity = parts.identity.detach().clone()
    dist.all_reduce(identity)
    torch.testing.assert_close(identity / 2, expected.identity.detach())
    torch.testing.assert_close(parallel.module.weight.grad, alone.weight.grad)


def test_an_error_on_one_rank_is_raised_on_both():
    gloo.run(_refuse_together)


def _refuse_together(rank):
    rows, pids = torch.randn(4, 3, generator=torch.Generator().manual_seed(rank)), PIDS[4 * rank : 4 * rank + 4]
    bad = rank == 1
    elsewhere = r"refused on rank \[1\]"
    loss = BatchHardTriplet(gather=True)
    expect = pytest.raises
    with expect(ValueError, match=r"pids must be \(B,\) with B=4" if bad else elsewhere):
        loss(rows, pids[:3] if bad else pids)
    with expect(TypeError if bad else ValueError, match=r"embeddings must be a tensor" if bad else elsewhere):
        loss(rows.tolist() if bad else rows, pids)
    with expect(ValueError, match=r"embeddings must not be empty" if bad else elsewhere):
        loss(rows[:0] if bad else rows, pids[:0] if bad else pids)
    with expect(ValueError, match=r"one width and dtype on all ranks, got 3 x float32, 2 x float32"):
        loss(rows[:, :2] if bad else rows, pids)
    with expect(ValueError, match=r"one width and dtype on all ranks, got 3 x float32, 3 x float64"):
        loss(rows.double() if bad else rows, pids)
    with expect(ValueError, match=r"embeddings must be finite, got 12 NaN or infinite values"):
        loss(rows * float("nan") if bad else rows, pids)
    with expect(ValueError, match=r"but pid 99 has one"):
        loss(rows, torch.tensor([2, 9, 9, 99]) if bad else pids)
    with expect(ValueError, match=r"all 8 rows are pid 3"):
        loss(rows, torch.full((4,), 3))

    both = ReIDLoss(gather=True)
    logits = torch.zeros(4, 10)
    with expect(ValueError, match=r"output must have logits, got None" if bad else elsewhere):
        both(Output(rows, rows, None if bad else logits), pids)
    with expect(ValueError, match=r"pids must be classes from 0 to 5, got 9|from 0 to 5, got 7"):
        both(Output(rows, rows, logits[:, :6]), pids)
    assert loss(rows, pids).isfinite()  # the group is still in step
