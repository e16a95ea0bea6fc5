"""Model zoo for video person re-identification.

The public names stand here once and are imported on first use (PEP 562), so that a single block costs no timm import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "SeparableConv3d": "nl3d.layers.separable",
    "NonLocalBlock3d": "nl3d.layers.non_local",
    "ReIDHead": "nl3d.layers.head",
    "ReIDOutput": "nl3d.layers.head",
    "Inflate2dTo3d": "nl3d.inflate",
    "BatchHardTriplet": "nl3d.losses.triplet",
    "ReIDLoss": "nl3d.losses.reid",
}

if TYPE_CHECKING:
    from nl3d.layers.head import ReIDHead as ReIDHead
    from nl3d.layers.head import ReIDOutput as ReIDOutput
    from nl3d.layers.non_local import NonLocalBlock3d as NonLocalBlock3d
    from nl3d.layers.separable import SeparableConv3d as SeparableConv3d
    from nl3d.losses.reid import ReIDLoss as ReIDLoss
    from nl3d.losses.triplet import BatchHardTriplet as BatchHardTriplet

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nl3d' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
