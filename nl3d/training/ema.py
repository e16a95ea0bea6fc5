"""Weights averaged over the steps of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """Exponential moving average of a network's parameters and buffers.

    The decay rises from 0.1 to its value as ``(1 + n) / (10 + n)``, so that the initial weights are soon forgotten.
    Buffers that are no floating-point numbers are copied.

    Args:
        model: The network whose weights are averaged.
        decay: Share of the old average that stays at each step, from 0 to 1.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> average = AveragedWeights(model, decay=0.5)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> average.update()
        >>> with average.applied():
        ...     inside = model.weight.item()
        >>> inside != 0, model.weight.item()
        (True, 0.0)
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.model = model
        self.decay = decay
        self.num_updates = 0
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of one more step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        current = self.model.state_dict()
        floating = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.tensors[n] for n in floating], [current[n] for n in floating], 1 - decay)
        for name, tensor in self.tensors.items():
            if not tensor.is_floating_point():
                tensor.copy_(current[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the network's place for a while."""
        kept = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self._write(self.tensors)
        try:
            yield
        finally:
            self._write(kept)

    def load(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Go on from saved averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.num_updates = num_updates

    @torch.no_grad()
    def _write(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(tensors[name])
