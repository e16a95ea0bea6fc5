from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nl3d.metrics import pairwise_distance


def make(rows, others, width=5, dtype=torch.float64):
    return torch.randn(rows, width, dtype=dtype), torch.randn(others, width, dtype=dtype)


def slow(query, gallery, metric):
    def one(a, b):
        if metric == "euclidean":
            return math.dist(a, b)
        return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    return torch.tensor([[one(a, b) for b in gallery.tolist()] for a in query.tolist()], dtype=torch.float64)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("shift", [0, 50])
def test_equals_plain_loops(metric, shift):
    query, gallery = (rows + shift for rows in make(4, 7))
    torch.testing.assert_close(pairwise_distance(query, gallery, metric=metric), slow(query, gallery, metric))


def test_float32_rows_far_from_the_origin_keep_their_distances():
    query, gallery = (rows + 1000 for rows in make(4, 7, dtype=torch.float32))
    expected = slow(query, gallery, "euclidean").float()
    torch.testing.assert_close(pairwise_distance(query, gallery), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("offset", [300.0, 1000.0, 1e4])
def test_rows_in_clouds_far_apart_keep_their_order(offset):
    query = torch.randn(20, 64)
    gallery = torch.cat([query + 0.01 * torch.randn(20, 64) + offset, torch.randn(30, 64)])
    found = pairwise_distance(query + offset, gallery)
    exact = torch.cdist((query + offset).double(), gallery.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.float(), rtol=1e-3, atol=0)


def test_the_kind_of_the_query_is_the_kind_of_the_result():
    query, gallery = make(3, 4, dtype=torch.float32)
    expected = pairwise_distance(query, gallery)
    for other in (gallery, gallery.numpy()):
        distmat = pairwise_distance(query.numpy(), other)
        assert isinstance(distmat, np.ndarray)
        assert np.array_equal(distmat, expected.numpy())
    assert torch.equal(pairwise_distance(query, gallery.numpy()), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_under_autocast(dtype):
    query, gallery = (rows.to(dtype) for rows in make(3, 4, width=64, dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distmat = pairwise_distance(query, gallery)
    assert distmat.dtype == torch.float32
    torch.testing.assert_close(distmat.double(), slow(query, gallery, "euclidean"), rtol=1e-5, atol=0)


def test_a_row_of_zeros_has_the_cosine_zero():
    distmat = pairwise_distance(torch.zeros(1, 3), torch.randn(4, 3), metric="cosine")
    assert torch.equal(distmat, torch.ones(1, 4))


def test_huge_rows_have_a_cosine():
    distmat = pairwise_distance(
        torch.tensor([[1e30, 0.0]]), torch.tensor([[1e25, 1e25], [0.0, 1e-25]]), metric="cosine"
    )
    torch.testing.assert_close(distmat, torch.tensor([[1 - math.sqrt(0.5), 1.0]]))


def test_a_gradient_is_not_kept():
    assert not pairwise_distance(torch.ones(1, 2, requires_grad=True), torch.ones(1, 2)).requires_grad


def test_arrays_that_torch_cannot_wrap_are_copied():
    query, gallery = (rows.numpy() for rows in make(3, 4))
    expected = pairwise_distance(query, gallery)
    readonly = gallery.copy()
    readonly.flags.writeable = False
    for other in (readonly, gallery[::-1][::-1].astype(">f8"), np.ascontiguousarray(gallery[::-1])[::-1]):
        np.testing.assert_array_equal(pairwise_distance(query, other), expected)


@pytest.mark.parametrize(
    ("query", "gallery", "error", "message"),
    [
        ([[1.0]], torch.ones(2, 3), TypeError, r"query must be a tensor or an array \(N, D\), got list"),
        (torch.ones(2, 3), torch.ones(2, 3, 1), ValueError, r"gallery must be \(N, D\) and not empty, got \(2, 3, 1\)"),
        (torch.ones(0, 3), torch.ones(2, 3), ValueError, r"query must be \(N, D\) and not empty, got \(0, 3\)"),
        (torch.ones(2, 3), torch.ones(2, 3).int(), TypeError, r"gallery must be floating point, got torch.int32"),
        (torch.ones(2, 3), np.array([["a"]]), TypeError, r"gallery must be an array of numbers, got <U1"),
        (torch.ones(2, 3), torch.ones(2, 4), ValueError, r"query and gallery must have one width, got 3 and 4"),
        (torch.full((2, 3), math.nan), torch.ones(2, 3), ValueError, r"query must be finite, .* in 2 of 2 embeddings"),
        (
            torch.ones(2, 3),
            torch.tensor([[1.0] * 3, [math.inf] * 3]),
            ValueError,
            r"gallery must be finite, .* in 1 of 2",
        ),
        (torch.full((2, 3), 1e30), torch.ones(2, 3), ValueError, r"query must have finite squares, .*; normalise them"),
        (torch.ones(2, 3), torch.ones(2, 3, device="meta"), ValueError, r"must be on one device, got cpu and meta"),
    ],
)
def test_refuses_wrong_embeddings(query, gallery, error, message):
    with pytest.raises(error, match=message):
        pairwise_distance(query, gallery)


def test_refuses_an_unknown_metric():
    with pytest.raises(ValueError, match=r"metric must be one of 'euclidean', 'cosine', got 'manhattan'"):
        pairwise_distance(torch.ones(1, 2), torch.ones(1, 2), metric="manhattan")
