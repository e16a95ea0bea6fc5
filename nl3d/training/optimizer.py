"""The optimiser of a configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nl3d.training.config import TrainingConfig


def make_optimizer(config: TrainingConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Optimiser of a configuration over all weights of a network."""
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, **options)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(network.parameters(), **options)
