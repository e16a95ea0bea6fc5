"""One step of the optimiser: from the micro-batches of a rank to gradients (Sec. 3.3, Eq. 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nl3d.layers.head import ReIDOutput
from nl3d.losses import ReIDLoss

if TYPE_CHECKING:
    from accelerate import Accelerator

MicroBatch = tuple[Tensor, Tensor]
"""Clips ``(B, 3, T, H, W)`` and their labels ``(B,)``, on the device."""


class NotFiniteError(RuntimeError):
    """The loss or a weight is NaN or infinite; what was saved before is good."""


def backward(
    accelerator: Accelerator, model: nn.Module, criterion: ReIDLoss, batches: Sequence[MicroBatch], *, mining: str
) -> Tensor:
    """Add the gradients of one batch, given as micro-batches; gives (total, identity, triplet) of this rank, detached.

    Ranks exchange gradients once, in the last backward pass. With ``mining="micro"`` each micro-batch has a loss of its
    own, and the gradient is the mean of theirs: the hardest negative is then one of P / accumulate identities. With
    ``"batch"`` all micro-batches are first run without a graph, the loss is taken on the rows of all, and its gradients
    are fed into second forward passes that draw the same dropout: triplets and gradients are those of the undivided
    batch, but for the batch norms, which see a micro-batch at a time. With one micro-batch both are the plain step.

    Raises:
        NotFiniteError: If the network's output is NaN or infinite.
    """
    if len(batches) == 1 or mining == "micro":
        return _backward_each(accelerator, model, criterion, batches)
    return _backward_joined(accelerator, model, criterion, batches)


def _backward_each(
    accelerator: Accelerator, model: nn.Module, criterion: ReIDLoss, batches: Sequence[MicroBatch]
) -> Tensor:
    sums = torch.zeros(3, device=accelerator.device)
    for number, (clips, labels) in enumerate(batches):
        with _exchange(accelerator, model, last=number == len(batches) - 1):
            parts = finite_parts(criterion, model(clips), labels)
            sums += torch.stack([part.detach().float() for part in parts]) / len(batches)
            accelerator.backward(parts[0] / len(batches))
    return sums


def _backward_joined(
    accelerator: Accelerator, model: nn.Module, criterion: ReIDLoss, batches: Sequence[MicroBatch]
) -> Tensor:
    states, outputs = [], []
    with torch.no_grad(), _buffers_kept(model):
        for clips, _ in batches:
            states.append(_random_state(accelerator.device))
            outputs.append(model(clips))
    rows = [torch.cat(pieces).requires_grad_() for pieces in zip(*outputs, strict=True)]
    parts = finite_parts(criterion, ReIDOutput(*rows), torch.cat([labels for _, labels in batches]))
    accelerator.backward(parts[0])
    gradients = [torch.zeros_like(row) if row.grad is None else row.grad for row in rows]
    splits = zip(*(gradient.split([len(labels) for _, labels in batches]) for gradient in gradients), strict=True)
    for number, ((clips, _), pieces) in enumerate(zip(batches, splits, strict=True)):
        _set_random_state(states[number], accelerator.device)  # the last pass leaves it where the first one did
        with _exchange(accelerator, model, last=number == len(batches) - 1):
            torch.autograd.backward(list(model(clips)), list(pieces))
    return torch.stack([part.detach().float() for part in parts])


def finite_parts(criterion: ReIDLoss, output: Any, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and its two terms, or :class:`NotFiniteError` where the network's output is not finite."""
    try:
        return tuple(criterion.parts(output, labels))  # type: ignore[return-value]
    except ValueError as error:
        if "finite" in str(error):
            raise NotFiniteError("the network's output is NaN or infinite") from error
        raise


@contextmanager
def _exchange(accelerator: Accelerator, model: nn.Module, *, last: bool) -> Iterator[None]:
    """Exchange gradients between ranks only in the last backward pass."""
    with nullcontext() if last else accelerator.no_sync(model):
        yield


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put the running statistics back afterwards, so that they count each clip once."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
