"""The optimiser of a configuration, and its learning rate as a function of time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

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

    Example:
        >>> from nl3d.training.config import recipe
        >>> [f"{learning_rate(recipe('paper'), epoch):.2e}" for epoch in (0, 150, 225, 300)]
        ['3.00e-04', '3.00e-04', '9.49e-06', '3.00e-07']
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
