from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import nl3d.losses
from nl3d.losses import BatchHardTriplet, ReIDLoss

PIDS = torch.tensor([0, 3, 0, 3, 1, 1])


class Output(NamedTuple):
    features: Tensor
    embedding: Tensor
    logits: Tensor | None


def make_output(dtype=torch.float64, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(6, width, dtype=dtype, generator=generator) for width in (7, 3, 4)]
    return Output(*(part.requires_grad_(requires_grad) for part in parts))


def smoothed_oracle(logits, pids, epsilon):
    """Cross entropy of the smoothed target, in plain loops."""
    total = 0.0
    for row, pid in zip(logits.tolist(), pids.tolist(), strict=True):
        log_sum = torch.tensor(row, dtype=torch.float64).exp().sum().log().item()
        for index, logit in enumerate(row):
            target = (1 - epsilon) * (index == pid) + epsilon / len(row)
            total -= target * (logit - log_sum)
    return total / len(logits)


@pytest.mark.parametrize("triplet_on", ["features", "embedding"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_is_the_smoothed_cross_entropy_plus_the_triplet_loss(triplet_on, epsilon):
    output = make_output()
    loss = ReIDLoss(0.7, triplet_on=triplet_on, label_smoothing=epsilon, triplet_reduction="sum")
    parts = loss.parts(output, PIDS)
    assert parts.identity.item() == pytest.approx(smoothed_oracle(output.logits, PIDS, epsilon))
    assert parts.triplet.item() == BatchHardTriplet(0.7, reduction="sum")(getattr(output, triplet_on), PIDS).item()
    assert parts.total.item() == pytest.approx(parts.identity.item() + parts.triplet.item())
    assert loss(output, PIDS).item() == parts.total.item()


@pytest.mark.parametrize(("triplet_on", "other"), [("features", "embedding"), ("embedding", "features")])
def test_gradient_reaches_the_logits_and_only_the_chosen_rows(triplet_on, other):
    output = make_output(requires_grad=True)
    ReIDLoss(triplet_on=triplet_on, margin="soft")(output, PIDS).backward()
    assert getattr(output, triplet_on).grad.abs().sum() > 0
    assert output.logits.grad.abs().sum() > 0
    assert getattr(output, other).grad is None


def test_half_precision_logits_are_compared_in_float32():
    output = make_output(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = ReIDLoss().parts(output, PIDS)
    assert {part.dtype for part in parts} == {torch.float32}
    assert parts.identity.item() == pytest.approx(smoothed_oracle(output.logits.double(), PIDS, 0.1), rel=1e-6)


def test_takes_the_output_of_the_head():
    head = pytest.importorskip("nl3d.layers.head")
    output = make_output()
    taken = ReIDLoss()(head.ReIDOutput(*output), PIDS)
    assert taken == ReIDLoss()(output, PIDS)


def test_compiles_to_one_graph():
    loss = ReIDLoss()
    output = make_output(torch.float32)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(output, PIDS), loss(output, PIDS))


@pytest.mark.parametrize(
    ("change", "pids", "error", "message"),
    [
        ({"logits": None}, PIDS, ValueError, r"output must have logits, got None; build the network with num_classes"),
        ({"logits": torch.ones(5, 4)}, PIDS, ValueError, r"logits must be \(B, num_classes\) with B=6, got \(5, 4\)"),
        ({"logits": torch.ones(6)}, PIDS, ValueError, r"logits must be \(B, num_classes\) with B=6, got \(6,\)"),
        ({"logits": torch.ones(6, 4).long()}, PIDS, TypeError, r"logits must be floating point, got torch.int64"),
        ({"logits": [[1.0]]}, PIDS, TypeError, r"logits must be a tensor \(B, num_classes\), got list"),
        ({"features": torch.ones(6, 2, 2)}, PIDS, ValueError, r"features must be \(B, D\), got \(6, 2, 2\); pool"),
        ({}, PIDS + 1, ValueError, r"pids must be classes from 0 to 3, got 4; number the identities consecutively"),
        ({}, PIDS - 1, ValueError, r"pids must be classes from 0 to 3, got -1"),
        ({}, PIDS.double(), TypeError, r"pids must be integers, got torch.float64"),
    ],
)
def test_refuses_a_wrong_output(change, pids, error, message):
    with pytest.raises(error, match=message):
        ReIDLoss()(make_output()._replace(**change), pids)


def test_refuses_an_output_without_names():
    with pytest.raises(
        TypeError, match=r"output must have features and logits, got Tensor without features and logits"
    ):
        ReIDLoss()(torch.ones(6, 4), PIDS)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, float("nan")])
def test_refuses_a_wrong_label_smoothing(epsilon):
    with pytest.raises(ValueError, match=r"label_smoothing must be at least 0 and below 1, got"):
        ReIDLoss(label_smoothing=epsilon)


def test_refuses_an_unknown_choice_of_rows():
    with pytest.raises(ValueError, match=r"triplet_on must be one of 'features', 'embedding', got 'logits'"):
        ReIDLoss(triplet_on="logits")


def test_losses_are_a_leaf():
    for path in Path(nl3d.losses.__file__).parent.glob("*.py"):
        names = [node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert all(name.startswith("nl3d.losses") for name in names if name and name.startswith("nl3d")), path.name
