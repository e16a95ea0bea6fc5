from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nl3d.losses import BatchHardTriplet

PIDS = torch.tensor([4, 9, 4, 2, 9, 9, 2, 4])


def triplet_oracle(embeddings, pids, margin=0.3, reduction="mean"):
    """Eq. 7 in plain loops, differentiable, in the dtype of the embeddings."""
    terms = []
    for a in range(len(pids)):
        positives = [_distance(embeddings[a], embeddings[p]) for p in range(len(pids)) if p != a and pids[p] == pids[a]]
        negatives = [_distance(embeddings[a], embeddings[n]) for n in range(len(pids)) if pids[n] != pids[a]]
        gap = max(positives, key=Tensor.item) - min(negatives, key=Tensor.item)
        terms.append(torch.log1p(gap.exp()) if margin == "soft" else torch.clamp(margin + gap, min=0))
    total = torch.stack(terms).sum()
    return total if reduction == "sum" else total / len(pids)


def _distance(first, second):
    return ((first - second) ** 2).sum().sqrt()


@pytest.mark.parametrize("margin", [0.0, 0.3, 1, "soft"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_and_gradient_equal_the_loops_of_eq_7(margin, reduction):
    embeddings = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = BatchHardTriplet(margin, reduction=reduction)(embeddings, PIDS)
    expected = triplet_oracle(embeddings, PIDS, margin, reduction)
    assert 0 < expected
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, embeddings), torch.autograd.grad(expected, embeddings), rtol=1e-9, atol=1e-12
    )


def test_gradcheck():
    embeddings = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: BatchHardTriplet("soft")(rows, PIDS), embeddings)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 2**31), st.sampled_from([0.3, "soft"]))
def test_equals_the_loops_for_any_identities_in_any_order(drawn, seed, margin):
    generator = torch.Generator().manual_seed(seed)
    pids = torch.tensor([*drawn, *drawn, 8, 8])  # every identity at least twice, and at least two of them
    pids = pids[torch.randperm(len(pids), generator=generator)]
    embeddings = torch.randn(len(pids), 3, dtype=torch.float64, generator=generator)
    loss = BatchHardTriplet(margin)(embeddings, pids)
    torch.testing.assert_close(loss, triplet_oracle(embeddings, pids, margin))


def test_far_from_the_origin_the_hardest_rows_are_still_found():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(8, 16, dtype=torch.float64, generator=generator).float() + 1000
    loss = BatchHardTriplet()(embeddings, PIDS)
    torch.testing.assert_close(loss.double(), triplet_oracle(embeddings.double(), PIDS), rtol=1e-6, atol=0)


@pytest.mark.parametrize("offset", [300.0, 1000.0, 1e4])
@pytest.mark.parametrize("share", [0.5, 0.03])
def test_in_clouds_far_apart_the_hardest_rows_are_still_found(offset, share):
    pids = torch.arange(32).repeat_interleave(4)
    rows = torch.randn(128, 512)
    rows[: round(128 * share)] += offset
    exact = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    same = pids[:, None] == pids
    hardest = exact.masked_fill(~same, -1).amax(1) - exact.masked_fill(same, math.inf).amin(1)
    expected = torch.relu(hardest + 0.3).mean().float()
    torch.testing.assert_close(BatchHardTriplet()(rows, pids), expected, rtol=1e-5, atol=0)


def test_gradient_at_distance_zero_is_finite():
    embeddings = torch.ones(4, 3, requires_grad=True)
    loss = BatchHardTriplet(0.3)(embeddings, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.3)
    assert torch.equal(embeddings.grad, torch.zeros(4, 3))


def test_one_collapsed_identity_leaves_the_other_gradients():
    embeddings = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [3.0, 0.0]], requires_grad=True)
    BatchHardTriplet(5.0)(embeddings, torch.tensor([0, 0, 1, 1])).backward()
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_compared_in_float32_under_autocast(dtype):
    embeddings = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = BatchHardTriplet()(embeddings, PIDS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert embeddings.grad.dtype == dtype
    torch.testing.assert_close(loss.double(), triplet_oracle(embeddings.double(), PIDS), rtol=1e-6, atol=1e-6)


def test_autocast_does_not_change_float32_rows():
    embeddings = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))  # many rows that are almost as hard
    pids = torch.arange(64) // 4
    plain = BatchHardTriplet()(embeddings, pids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(BatchHardTriplet()(embeddings, pids), plain)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_any_integer_type_of_pids(dtype):
    embeddings = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(BatchHardTriplet()(embeddings, PIDS.to(dtype)), BatchHardTriplet()(embeddings, PIDS))


def test_gather_without_a_process_group_changes_nothing():
    embeddings = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(BatchHardTriplet(gather=True)(embeddings, PIDS), BatchHardTriplet()(embeddings, PIDS))


def test_compiles_to_one_graph_with_the_same_gradient():
    loss = BatchHardTriplet()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    embeddings = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    torch.testing.assert_close(compiled(embeddings, PIDS), loss(embeddings, PIDS))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(embeddings, PIDS), embeddings),
        torch.autograd.grad(loss(embeddings, PIDS), embeddings),
    )
    collapsed = torch.ones(8, 5, requires_grad=True)
    compiled(collapsed, PIDS).backward()
    assert torch.equal(collapsed.grad, torch.zeros(8, 5))


def test_compiled_an_anchor_without_a_triplet_makes_the_loss_nan():
    compiled = torch.compile(BatchHardTriplet(), fullgraph=True, backend="aot_eager")
    assert compiled(torch.randn(3, 5), torch.tensor([0, 0, 1])).isnan()


@pytest.mark.parametrize(
    ("embeddings", "pids", "error", "message"),
    [
        ([[1.0]], PIDS, TypeError, r"embeddings must be a tensor \(B, D\), got list"),
        (torch.ones(8, 3), [1] * 8, TypeError, r"pids must be a tensor \(B,\), got list"),
        (torch.ones(8, 3, 2), PIDS, ValueError, r"embeddings must be \(B, D\), got \(8, 3, 2\); pool time and space"),
        (torch.ones(8), PIDS, ValueError, r"embeddings must be \(B, D\), got \(8,\)"),
        (torch.ones(8, 3).long(), PIDS, TypeError, r"embeddings must be floating point, got torch.int64"),
        (torch.ones(0, 3), PIDS[:0], ValueError, r"embeddings must not be empty, got \(0, 3\)"),
        (torch.ones(7, 3), PIDS, ValueError, r"pids must be \(B,\) with B=7, one for each row, got \(8,\)"),
        (torch.ones(8, 3), PIDS[:, None], ValueError, r"pids must be \(B,\) with B=8, one for each row, got \(8, 1\)"),
        (torch.ones(8, 3), PIDS.float(), TypeError, r"pids must be integers, got torch.float32; use pids.long\(\)"),
        (torch.ones(8, 3), PIDS > 2, TypeError, r"pids must be integers, got torch.bool"),
        (torch.ones(8, 3), PIDS.to("meta"), ValueError, r"pids must be on the device of embeddings, cpu, got meta"),
        (torch.full((8, 3), math.nan), PIDS, ValueError, r"embeddings must be finite, got 24 NaN or infinite values"),
        (
            torch.full((8, 9), 1e19),
            PIDS,
            ValueError,
            r"embeddings must have finite squares, got values up to 1.0e\+19; ",
        ),
        (torch.ones(4, 3), torch.tensor([5, 5, 17, 6]), ValueError, r"pid 6 has one \(and 1 more pids\); draw batches"),
        (
            torch.ones(3, 3),
            torch.tensor([5, 5, 17]),
            ValueError,
            r"two rows of every pid in the batch, but pid 17 has one;",
        ),
        (
            torch.ones(3, 3),
            torch.tensor([5, 5, 5]),
            ValueError,
            r"two identities in the batch, but all 3 rows are pid 5;",
        ),
    ],
)
def test_refuses_a_wrong_batch(embeddings, pids, error, message):
    with pytest.raises(error, match=message):
        BatchHardTriplet()(embeddings, pids)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf, "hard"])
def test_refuses_a_wrong_margin(margin):
    with pytest.raises(ValueError, match=r"margin must be 'soft' or a finite number of at least 0, got"):
        BatchHardTriplet(margin)


def test_refuses_a_margin_of_another_kind():
    with pytest.raises(TypeError, match=r"margin must be 'soft' or a finite number of at least 0, got None"):
        BatchHardTriplet(None)


def test_refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match=r"reduction must be one of 'mean', 'sum', got 'none'"):
        BatchHardTriplet(reduction="none")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu_under_autocast(dtype):
    embeddings = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).to("cuda", dtype).requires_grad_()
    with torch.autocast("cuda", dtype=torch.float16):
        loss = BatchHardTriplet()(embeddings, PIDS.cuda())
    loss.backward()
    assert embeddings.grad.isfinite().all()
    expected = triplet_oracle(embeddings.double().cpu(), PIDS)
    torch.testing.assert_close(loss.double().cpu(), expected, rtol=1e-5, atol=1e-5)
