from __future__ import annotations

import ast
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nl3d.metrics
from nl3d.metrics import evaluate, evaluate_distmat, pairwise_distance
from nl3d.metrics import positions as positions_module
from tests import oracles

RANKS = (1, 2, 5)


def assert_scores(result, expected):
    cmc, mean_precision, mean_penalty, count = expected
    assert result.num_valid_queries == count
    assert result.cmc == pytest.approx(cmc)
    assert result.mAP == pytest.approx(mean_precision)
    assert result.mINP == pytest.approx(mean_penalty)


def assert_same(result, expected):
    """Equal but for the order of a sum."""
    assert result.cmc == pytest.approx(expected.cmc, rel=1e-12)
    assert (result.mAP, result.mINP) == pytest.approx((expected.mAP, expected.mINP), rel=1e-12)
    rest = {"cmc": {}, "mAP": 0.0, "mINP": 0.0}
    assert dataclasses.replace(result, **rest) == dataclasses.replace(expected, **rest)


@st.composite
def retrievals(draw):
    """Small embeddings of integers, so that distances are exact and often equal, with few identities and cameras."""
    num_query, num_gallery, width = draw(st.integers(1, 6)), draw(st.integers(1, 14)), draw(st.integers(1, 3))
    value = st.integers(-2, 2)

    def matrix(count):
        return draw(st.lists(st.lists(value, min_size=width, max_size=width), min_size=count, max_size=count))

    def labels(count, low, high):
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    return (
        matrix(num_query),
        matrix(num_gallery),
        labels(num_query, 0, 3),
        labels(num_gallery, -1, 3),
        labels(num_query, 0, 1),
        labels(num_gallery, 0, 1),
    )


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    retrievals(),
    st.sampled_from(["interpolated", "trapezoid"]),
    st.sampled_from([(), (0,)]),
    st.booleans(),
    st.sampled_from([1, 2, None]),
    st.sampled_from([0, 1, 64]),
)
def test_equals_the_walk_down_every_ranking(retrieval, ap, distractors, cameras, chunk_size, count_up_to):
    query, gallery, *labels = retrieval
    distmat = [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in gallery] for x in query]
    expected = oracles.ranking_scores(distmat, *labels, ap=ap, ranks=RANKS, distractors=distractors, cameras=cameras)
    options = {
        "ap": ap,
        "ranks": RANKS,
        "distractor_pids": distractors,
        "exclude_same_camera": cameras,
        "chunk_size": chunk_size,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions_module, "COUNT_UP_TO", count_up_to)
        for call in (
            lambda: evaluate(torch.tensor(query).float(), torch.tensor(gallery).float(), *labels, **options),
            lambda: evaluate_distmat(np.array(distmat, dtype=np.float64), *map(np.array, labels), **options),
        ):
            if expected[-1]:
                assert_scores(call(), expected)
            else:
                with pytest.raises(ValueError, match=r"must have a match in g_pids|g_pids must hold more than junk"):
                    call()


def make(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query, gallery = (torch.randn(count, 8, dtype=dtype, generator=generator) for count in (30, 200))
    pids = [torch.randint(-1, 12, (count,), generator=generator) for count in (30, 200)]
    camids = [torch.randint(0, 4, (count,), generator=generator) for count in (30, 200)]
    return query, gallery, *pids, *camids


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("ap", ["interpolated", "trapezoid"])
@pytest.mark.parametrize("count_up_to", [0, 15, 64])
def test_equals_the_walk_at_another_size(metric, ap, count_up_to, monkeypatch):
    monkeypatch.setattr(positions_module, "COUNT_UP_TO", count_up_to)
    query, gallery, *labels = make()
    distmat = pairwise_distance(query, gallery, metric=metric).tolist()
    lists = [label.tolist() for label in labels]
    expected = oracles.ranking_scores(distmat, *lists, ap=ap, ranks=RANKS)
    result = evaluate(query, gallery, *labels, metric=metric, ap=ap, ranks=RANKS)
    assert_scores(result, expected)
    assert result.num_queries == 30
    assert result.num_queries_without_match == 30 - expected[-1] > 0
    assert result.num_junk == lists[1].count(-1) > 0
    assert result.num_gallery == 200 - result.num_junk
    assert (result.ap, result.exclude_same_camera) == (ap, True)


def test_arrays_tensors_and_every_dtype_agree():
    query, gallery, *labels = make(torch.float32)
    expected = evaluate(query, gallery, *labels)
    arrays = [values.numpy() for values in (query, gallery, *labels)]
    assert evaluate(*arrays) == expected
    assert evaluate(query, gallery, *(label.tolist() for label in labels)) == expected
    assert evaluate(query, gallery, *(label.to(torch.int16) for label in labels)) == expected
    assert evaluate(query.requires_grad_(), gallery, *labels) == expected
    half = evaluate(query.half(), gallery.half(), *labels)
    assert half == evaluate(query.half().float(), gallery.half().float(), *labels)


@pytest.mark.parametrize("chunk_size", [1, 7, 30, 1000])
def test_the_chunk_size_changes_nothing(chunk_size):
    assert evaluate(*make(), chunk_size=chunk_size) == evaluate(*make())


def test_inputs_are_left_alone():
    inputs = make()
    copies = [values.clone() for values in inputs]
    evaluate(*inputs)
    distmat = pairwise_distance(*inputs[:2])
    before = distmat.clone()
    evaluate_distmat(distmat, *inputs[2:], junk_pids=())
    assert torch.equal(distmat, before)
    assert all(torch.equal(one, other) for one, other in zip(inputs, copies, strict=True))


def test_one_hand_made_ranking():
    """Ranking: match, wrong, match, wrong, match; precisions 1, 2/3, 3/5."""
    arguments = (torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]]), [1], [1, 2, 1, 2, 1], [0], [1] * 5)
    result = evaluate_distmat(*arguments)
    assert result.mAP == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert result.mINP == pytest.approx(3 / 5)
    assert evaluate_distmat(*arguments, ap="trapezoid").mAP == pytest.approx(
        ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2 + (2 / 4 + 3 / 5) / 2) / 3
    )


@pytest.mark.parametrize("count_up_to", [0, 64])
@pytest.mark.parametrize(("g_pids", "first"), [([2, 2, 1], 3), ([2, 1, 2], 2), ([1, 2, 2], 1)])
def test_at_equal_distance_the_order_of_the_gallery_decides(g_pids, first, count_up_to, monkeypatch):
    monkeypatch.setattr(positions_module, "COUNT_UP_TO", count_up_to)
    result = evaluate(torch.zeros(1, 2), torch.ones(3, 2), [1], g_pids, [0], [1, 1, 1], ranks=(1, 2, 3))
    assert result.cmc == {rank: float(rank >= first) for rank in (1, 2, 3)}


def test_a_query_in_the_gallery_is_not_its_own_match():
    rows = torch.tensor([[0.0], [1.0], [5.0]])
    pids, camids = [1, 2, 1], [0, 0, 1]
    assert evaluate(rows[:1], rows, pids[:1], pids, camids[:1], camids).cmc[1] == 0
    assert evaluate(rows[:1], rows, pids[:1], pids, camids[:1], camids, exclude_same_camera=False).cmc[1] == 1
    assert evaluate(rows[:1], rows, pids[:1], pids, None, None, exclude_same_camera=False).cmc[1] == 1


def test_junk_takes_no_place_and_distractors_do():
    distmat = torch.tensor([[0.1, 0.2, 0.3]])
    assert evaluate_distmat(distmat, [1], [-1, 0, 1], [0], [1, 1, 1]).mAP == pytest.approx(1 / 2)
    assert evaluate_distmat(distmat, [1], [-1, 0, 1], [0], [1, 1, 1], junk_pids=(-1, 0)).mAP == 1
    assert evaluate_distmat(distmat, [1], [-1, 0, 1], [0], [1, 1, 1], junk_pids=()).mAP == pytest.approx(1 / 3)
    both = evaluate_distmat(distmat.repeat(2, 1), [0, 1], [-1, 0, 1], [0, 0], [1, 1, 1], distractor_pids=(0,))
    assert (both.num_valid_queries, both.num_queries_without_match) == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_distmat_of_any_precision(dtype):
    distmat = torch.randn(4, 9).to(dtype)
    labels = (torch.arange(4), torch.arange(9) % 4, torch.zeros(4).int(), torch.ones(9).int())
    assert evaluate_distmat(distmat, *labels) == evaluate_distmat(distmat.double(), *labels)


def test_large_half_precision_values_are_finite_though_their_sum_is_not():
    rows = torch.full((9, 4), 60000.0, dtype=torch.float16)
    assert evaluate(rows[:1], rows, [1], [1] * 9, [0], [1] * 9, metric="cosine").mAP == 1


def test_infinite_distances_rank_last():
    result = evaluate_distmat(torch.tensor([[math.inf, 1.0, math.inf]]), [1], [2, 2, 1], [0], [1, 1, 1])
    assert result.mINP == pytest.approx(1 / 3)


@settings(derandomize=True, max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_the_gallery_does_not_matter_without_ties(seed):
    query, gallery, q_pids, g_pids, q_camids, g_camids = make(seed=seed)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    shuffled = evaluate(query, gallery[order], q_pids, g_pids[order], q_camids, g_camids[order])
    assert_same(shuffled, evaluate(query, gallery, q_pids, g_pids, q_camids, g_camids))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q_pids": [1]}, ValueError, r"q_pids must have one entry for each row, 2, got shape \(1,\)"),
        (
            {"g_pids": torch.ones(3, 1).long()},
            ValueError,
            r"g_pids must have one entry for each row, 3, got shape \(3, 1\)",
        ),
        ({"q_camids": [0.5, 1.0]}, TypeError, r"q_camids must be integers, got float64"),
        ({"g_camids": np.array(["a", "b", "c"])}, TypeError, r"g_camids must be integers, got <U1"),
        (
            {"q_camids": None},
            ValueError,
            r"q_camids and g_camids must be given, got None; or pass exclude_same_camera=Fal",
        ),
        (
            {"q_pids": [8, 9]},
            ValueError,
            r"must have a match in g_pids under another camera, got none for any of 2 queries",
        ),
        ({"g_camids": [0, 0, 0]}, ValueError, r"must have a match in g_pids under another camera, got none"),
        ({"g_pids": [-1, -1, -1]}, ValueError, r"g_pids must hold more than junk, got 3 rows of junk_pids \(-1,\)"),
        ({"ap": "voc"}, ValueError, r"ap must be one of 'interpolated', 'trapezoid', got 'voc'"),
        ({"ranks": ()}, ValueError, r"ranks must be integers of at least 1, got \(\)"),
        ({"ranks": (0, 1)}, ValueError, r"ranks must be integers of at least 1, got \(0, 1\)"),
        ({"chunk_size": 0}, ValueError, r"chunk_size must be at least 1, got 0"),
        ({"query": torch.full((2, 2), math.nan)}, ValueError, r"query must be finite"),
        ({"metric": "l1"}, ValueError, r"metric must be one of 'euclidean', 'cosine', got 'l1'"),
    ],
)
def test_refuses_wrong_arguments(change, error, message):
    arguments = {
        "query": torch.zeros(2, 2),
        "gallery": torch.ones(3, 2),
        "q_pids": [1, 2],
        "g_pids": [1, 2, 3],
        "q_camids": [0, 0],
        "g_camids": [1, 1, 1],
    }
    evaluate(**arguments)
    with pytest.raises(error, match=message):
        evaluate(**arguments | change)


@pytest.mark.parametrize(
    ("distmat", "error", "message"),
    [
        ([[1.0]], TypeError, r"distmat must be a tensor or an array \(num_query, num_gallery\), got list"),
        (torch.ones(1, 3).int(), TypeError, r"distmat must be floating point, got torch.int32"),
        (torch.ones(3), ValueError, r"distmat must be \(num_query, num_gallery\) and not empty, got \(3,\)"),
        (torch.tensor([[1.0, math.nan, 2.0]]), ValueError, r"distmat must not hold NaN, got 1 of them"),
        (torch.ones(1, 4), ValueError, r"g_pids must have one entry for each row, 4, got shape \(3,\)"),
    ],
)
def test_refuses_a_wrong_distmat(distmat, error, message):
    with pytest.raises(error, match=message):
        evaluate_distmat(distmat, [1], [1, 2, 3], [0], [1, 1, 1])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ap", ["interpolated", "trapezoid"])
def test_a_gpu_gives_the_same(ap):
    expected = evaluate(*make(), ap=ap)
    result = evaluate(*(values.cuda() for values in make()), ap=ap)
    assert_same(result, expected)


def test_metrics_are_a_leaf():
    for path in Path(nl3d.metrics.__file__).parent.glob("*.py"):
        names = [node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert all(name.startswith("nl3d.metrics") for name in names if name and name.startswith("nl3d")), path.name
