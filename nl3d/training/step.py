"""One step of the optimiser: from the micro-batches of a rank to gradients (Sec. 3.3, Eq. 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nl3d.layers.head import ReIDOutput

if TYPE_CHECKING:
    from accelerate import Accelerator

MicroBatch = tuple[Tensor, Tensor]
"""Clips ``(B, 3, T, H, W)`` and their labels ``(B,)``, on the device."""


class NotFiniteError(FloatingPointError):
    """The loss or a weight is NaN or infinite; checkpoints that were saved before are good."""


def backward(
    accelerator: Accelerator, model: nn.Module, criterion: nn.Module, batches: Sequence[MicroBatch], *, mining: str
) -> dict[str, Tensor]:
    """Add the gradients of one batch, given as micro-batches; return this rank's loss and its terms, detached.

    Ranks exchange gradients once, in the last backward pass. With ``mining="micro"`` each micro-batch has a loss of its
    own, and the gradient is the mean of theirs: the hardest negative is then one of P / accumulate identities. With
    ``"batch"`` a first forward pass without a graph gives the rows of all micro-batches. The loss is taken on these
    rows, and its gradients are fed into second forward passes that draw the same dropout. Triplets and gradients are
    those of the undivided batch; only batch norms see one micro-batch at a time. With one micro-batch both are the
    plain step.

    Args:
        accelerator: Group of processes.
        model: Network as the accelerator prepared it; its output is a :class:`~nl3d.ReIDOutput`.
        criterion: As for :func:`loss_terms`.
        batches: Micro-batches.
        mining: ``"batch"`` or ``"micro"``.
    """
    if len(batches) == 1 or mining == "micro":
        return _backward_each(accelerator, model, criterion, batches)
    return _backward_joined(accelerator, model, criterion, batches)


def loss_terms(criterion: nn.Module, output: ReIDOutput, labels: Tensor) -> dict[str, Tensor]:
    """Return the loss as ``"total"``, and its other terms by name where the criterion has a method ``parts``.

    ``criterion(output, labels)`` returns a scalar. ``criterion.parts(output, labels)`` returns a named tuple of scalars
    with a field ``total``, as :meth:`nl3d.ReIDLoss.parts` does.
    """
    try:
        if hasattr(criterion, "parts"):
            terms: dict[str, Tensor] = criterion.parts(output, labels)._asdict()  # type: ignore[operator]
            return terms
        return {"total": criterion(output, labels)}
    except ValueError as error:
        if "finite" in str(error):
            raise NotFiniteError(str(error)) from error
        raise


def _backward_each(
    accelerator: Accelerator, model: nn.Module, criterion: nn.Module, batches: Sequence[MicroBatch]
) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    for number, (clips, labels) in enumerate(batches):
        with _exchange(accelerator, model, last=number == len(batches) - 1):
            terms = loss_terms(criterion, model(clips), labels)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach().float() / len(batches)
            accelerator.backward(terms["total"] / len(batches))
    return sums


def _backward_joined(
    accelerator: Accelerator, model: nn.Module, criterion: nn.Module, batches: Sequence[MicroBatch]
) -> dict[str, Tensor]:
    states, outputs = [], []
    with torch.no_grad(), _buffers_kept(model):
        for clips, _ in batches:
            states.append(_random_state(accelerator.device))
            outputs.append(model(clips))
    rows = [torch.cat(pieces).requires_grad_() for pieces in zip(*outputs, strict=True)]
    terms = loss_terms(criterion, ReIDOutput(*rows), torch.cat([labels for _, labels in batches]))
    accelerator.backward(terms["total"])
    gradients = [torch.zeros_like(row) if row.grad is None else row.grad for row in rows]
    splits = zip(*(gradient.split([len(labels) for _, labels in batches]) for gradient in gradients), strict=True)
    for number, ((clips, _), pieces) in enumerate(zip(batches, splits, strict=True)):
        _set_random_state(states[number], accelerator.device)  # the last pass leaves it where the first one did
        with _exchange(accelerator, model, last=number == len(batches) - 1):
            torch.autograd.backward(list(model(clips)), list(pieces))
    return {name: term.detach().float() for name, term in terms.items()}


def _exchange(accelerator: Accelerator, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Exchange gradients between ranks only in the last backward pass."""
    return nullcontext() if last else accelerator.no_sync(model)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Restore the running statistics afterwards, so that they count each clip once."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)


def _random_state(device: torch.device) -> tuple[Any, ...]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Any, ...], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
