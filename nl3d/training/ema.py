"""Exponential moving average of the weights over the steps of training."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged_model(network: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a network whose parameters and buffers follow it as a moving average.

    The decay rises from 2 / 11 to its value as ``(1 + n) / (10 + n)`` at step ``n``, so that the initial weights are
    soon forgotten. Buffers that are no floating-point numbers are copied.

    Example:
        >>> network = torch.nn.Linear(1, 1, bias=False)
        >>> average = averaged_model(network, decay=0.5)
        >>> start = network.weight.item()
        >>> _ = torch.nn.init.constant_(network.weight, 11.0)
        >>> average.update_parameters(network)
        >>> abs(average.module.weight.item() - (2 * start / 11 + 9)) < 1e-5
        True
    """

    def update(averages: Any, current: Any, count: Tensor | int) -> None:
        step = int(count)
        rising = min(decay, (1 + step) / (10 + step)) if averages[0].is_floating_point() else 0.0
        get_ema_multi_avg_fn(rising)(averages, current, count)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    average.n_averaged += 1  # the initial weights are the first average, so the first step is no copy
    average.module.eval()
    return average
