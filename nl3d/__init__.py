"""Model zoo for video person re-identification.

The public names stand here once and are imported on first use (PEP 562), so that a single block costs no timm import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nl3d._version import __version__ as __version__

_PUBLIC = {
    "SeparableConv3d": "nl3d.layers.separable",
    "NonLocalBlock3d": "nl3d.layers.non_local",
    "ReIDHead": "nl3d.layers.head",
    "ReIDOutput": "nl3d.layers.head",
    "Inflate2dTo3d": "nl3d.inflate",
    "inflated": "nl3d.weights.inflated",
    "reid_model": "nl3d.weights.inflated",
    "BatchHardTriplet": "nl3d.losses.triplet",
    "ReIDLoss": "nl3d.losses.reid",
    "Embeddings": "nl3d.embedding.embeddings",
    "embed": "nl3d.embedding.embedder",
    "embed_to_file": "nl3d.embedding.sharing.shards",
    "rank": "nl3d.retrieval.rank",
    "Layout": "nl3d.models.layouts",
    "register_layout": "nl3d.models.layouts",
    "from_checkpoint": "nl3d.convert.checkpoint",
    "from_pretrained": "nl3d.weights.load",
    "register_timm": "nl3d.weights.timm_registry",
    "resnet3d18": "nl3d.weights.factories",
    "resnet3d18_nl": "nl3d.weights.factories",
    "resnet3d34": "nl3d.weights.factories",
    "resnet3d34_nl": "nl3d.weights.factories",
    "resnet3d50": "nl3d.weights.factories",
    "resnet3d50_nl": "nl3d.weights.factories",
    "resnet3d101": "nl3d.weights.factories",
    "resnet3d101_nl": "nl3d.weights.factories",
    "resnet50_tp": "nl3d.weights.factories",
    "resnet50_rnn": "nl3d.weights.factories",
    "resnet50_ta": "nl3d.weights.factories",
    "list_models": "nl3d.weights.records",
    "list_weights": "nl3d.weights.records",
}

if TYPE_CHECKING:
    from nl3d.convert.checkpoint import from_checkpoint as from_checkpoint
    from nl3d.embedding.embedder import embed as embed
    from nl3d.embedding.embeddings import Embeddings as Embeddings
    from nl3d.embedding.sharing.shards import embed_to_file as embed_to_file
    from nl3d.inflate import Inflate2dTo3d as Inflate2dTo3d
    from nl3d.layers.head import ReIDHead as ReIDHead
    from nl3d.layers.head import ReIDOutput as ReIDOutput
    from nl3d.layers.non_local import NonLocalBlock3d as NonLocalBlock3d
    from nl3d.layers.separable import SeparableConv3d as SeparableConv3d
    from nl3d.losses.reid import ReIDLoss as ReIDLoss
    from nl3d.losses.triplet import BatchHardTriplet as BatchHardTriplet
    from nl3d.models.layouts import Layout as Layout
    from nl3d.models.layouts import register_layout as register_layout
    from nl3d.retrieval.rank import rank as rank
    from nl3d.weights.factories import resnet3d18 as resnet3d18
    from nl3d.weights.factories import resnet3d18_nl as resnet3d18_nl
    from nl3d.weights.factories import resnet3d34 as resnet3d34
    from nl3d.weights.factories import resnet3d34_nl as resnet3d34_nl
    from nl3d.weights.factories import resnet3d50 as resnet3d50
    from nl3d.weights.factories import resnet3d50_nl as resnet3d50_nl
    from nl3d.weights.factories import resnet3d101 as resnet3d101
    from nl3d.weights.factories import resnet3d101_nl as resnet3d101_nl
    from nl3d.weights.factories import resnet50_rnn as resnet50_rnn
    from nl3d.weights.factories import resnet50_ta as resnet50_ta
    from nl3d.weights.factories import resnet50_tp as resnet50_tp
    from nl3d.weights.inflated import inflated as inflated
    from nl3d.weights.inflated import reid_model as reid_model
    from nl3d.weights.load import from_pretrained as from_pretrained
    from nl3d.weights.records import list_models as list_models
    from nl3d.weights.records import list_weights as list_weights
    from nl3d.weights.timm_registry import register_timm as register_timm

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nl3d' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
