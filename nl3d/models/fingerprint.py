"""Identity of a network's weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """Hash the parameters and buffers, so that vectors of different networks are never compared.

    An optimised network has the fingerprint of its original, whose outputs it gives.
    """
    kept = getattr(model, "fingerprint", None)
    if isinstance(kept, str):
        return kept
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
