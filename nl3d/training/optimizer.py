"""The optimiser of a configuration, its learning rate as a function of time, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nl3d.training.config import TrainingConfig


def make_optimizer(config: TrainingConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser of a configuration."""
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, nesterov=True, **options)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, **options)


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Return the learning rate at a time in epochs; it has no state, so a resumed run cannot be off by a step.

    ``exponential`` keeps the rate until ``decay_start`` of the epochs, then multiplies it by
    ``final_factor ** ((epoch - start) / (epochs - start))``. ``cosine`` falls along half a cosine from the end of the
    warm-up to ``final_factor``. The warm-up rises linearly from a hundredth, in every schedule.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 4.2: 0.0003, "reducing it by exponential decay with decay rate
    0.001 at 150 epochs" of 300; read as the rule of Hermans et al. 2017, arXiv:1703.07737, which has this form.
    """
    rise = config.warmup * config.epochs
    factor = 1.0
    if config.schedule == "exponential":
        start = config.decay_start * config.epochs
        if epoch > start:
            factor = config.final_factor ** ((epoch - start) / (config.epochs - start))
    elif config.schedule == "cosine" and epoch > rise:
        done = min((epoch - rise) / (config.epochs - rise), 1.0)
        factor = config.final_factor + (1 - config.final_factor) * (1 + math.cos(math.pi * done)) / 2
    if epoch < rise:
        factor *= 0.01 + 0.99 * epoch / rise
    return config.lr * factor


def averaged_model(network: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a network whose parameters and buffers follow it as a moving average.

    The decay rises from 2 / 11 to its value as ``(1 + n) / (10 + n)`` at step ``n``, so that the initial weights are
    soon forgotten. Buffers that are no floating-point numbers are copied.
    """

    def update(averages: Any, current: Any, count: Tensor | int) -> None:
        step = int(count)
        rising = min(decay, (1 + step) / (10 + step)) if averages[0].is_floating_point() else 0.0
        get_ema_multi_avg_fn(rising)(averages, current, count)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    average.n_averaged += 1  # the initial weights are the first average, so the first step is no copy
    average.module.eval()
    return average
