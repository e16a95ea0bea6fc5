"""One function that loads a network with its weights from any description."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nl3d.convert.checkpoint import from_checkpoint
from nl3d.models.reid_network import ReIDNetwork
from nl3d.weights import factories
from nl3d.weights.build import build_framewise, build_resnet3d
from nl3d.weights.open import BUNDLED_MODEL, HUB_PREFIX, INFLATED_PREFIX, Checkpoint, open_own_weights, open_weights
from nl3d.weights.packaged import packaged_spec
from nl3d.weights.records import FACTORIES, find_spec

if TYPE_CHECKING:
    from nl3d.weights.open import ForeignFile


def from_pretrained(
    source: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    num_classes: int | None = None,
    **options: Any,
) -> ReIDNetwork:
    """Load a network with its weights, in evaluation mode.

    What describes its own network is built as described: ``"bundled"``, ``"imagenet-lite0"``, a folder of
    ``save_pretrained`` or ``nl3d export``, a safetensors file of nl3d, a repository of the Hub. Any other file is read
    by :func:`~nl3d.from_checkpoint`, which computes what the original computed.

    Args:
        source: One of these, or the name of a network, for ``weights``. ``"resnet3d18_nl/bundled"`` names both.
        weights: What ``nl3d.<source>(weights)`` takes: a name of :func:`~nl3d.list_weights`, a file, a folder or
            ``"hf-hub:org/name[@revision]"``.
        num_classes: Classes of the classifier, 0 for none; as saved if left out. Another number than the saved one
            gives a fresh classifier.
        options: Arguments of the network's class that shall differ from the saved ones, or keywords of
            :func:`~nl3d.from_checkpoint` such as ``family``.

    Returns:
        A :class:`~nl3d.ResNet3d`, a frame-wise or an inflated network.

    Raises:
        FileNotFoundError: If a path or repository does not exist.
        ValueError: If the network or the weights are unknown, damaged, or do not fit each other.
        TypeError: If an option does not exist.
        PermissionError: If a repository is not open to you.
        ConnectionError: If the Hub cannot be reached.

    Example:
        >>> model = nl3d.from_pretrained("resnet3d18_nl/bundled")
        >>> model.embed(torch.rand(2, 3, *(model.pretrained_cfg["num_frames"], 96, 48))).shape
        torch.Size([2, 256])
    """
    name = os.fspath(source)
    first, _, rest = name.partition("/")
    if weights is None and first in FACTORIES and rest and not Path(name).exists():
        name, weights = first, rest
    if weights is not None:
        if name not in FACTORIES:
            raise ValueError(f"source must be a network if weights are given, one of {', '.join(FACTORIES)}; "
                             f"got {name!r}")  # fmt: skip
        return getattr(factories, name)(os.fspath(weights), num_classes=num_classes or 0, **options).eval()
    if packaged_spec(name):
        return build_described(cast(Checkpoint, open_own_weights(name)), num_classes, options)
    if name in FACTORIES and not Path(name).exists():
        find_spec(name, "")  # raises, and lists the names there are
    if name != "bundled" and not name.startswith(HUB_PREFIX) and not Path(name).exists():
        raise FileNotFoundError(
            f"source must be a folder, a file, 'hf-hub:org/name', 'bundled' or 'NETWORK/WEIGHTS' of nl3d list, "
            f"got {name!r}, which is none of them"
        )
    return build_described(open_weights(BUNDLED_MODEL, name), num_classes, options).eval()


def build_described(opened: Checkpoint | ForeignFile, num_classes: int | None, options: dict[str, Any]) -> ReIDNetwork:
    """Build the network that a checkpoint describes; without a description, the one that its keys and shapes show."""
    if not isinstance(opened, Checkpoint):
        return from_checkpoint(opened.path, num_classes=num_classes, **options)
    architecture = str(opened.config.get("architecture", ""))
    classes = int(opened.config.get("num_classes", 0)) if num_classes is None else num_classes
    if architecture.startswith(INFLATED_PREFIX):
        from nl3d.weights.inflated import reid_model

        return reid_model(architecture.removeprefix(INFLATED_PREFIX), opened, num_classes=classes, **options)
    if architecture.startswith("resnet3d"):
        return build_resnet3d(architecture, opened, classes, options)
    if architecture == "framewise" or architecture in FACTORIES:
        return build_framewise(architecture, opened, classes, options)
    return from_checkpoint(opened.tensors, num_classes=num_classes, **options)
