"""Tracklets: what they are, how they are read, and how they are cut into clips.

The names that most people need stand here once and are imported on first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "BoxOptions": "nl3d.data.readers.boxes",
    "Boxes": "nl3d.data.readers.boxes",
    "BoxTrack": "nl3d.data.readers.boxes",
    "read_boxes": "nl3d.data.readers.boxes",
    "ClipDataset": "nl3d.data.clips.dataset",
    "ClipProcessor": "nl3d.data.clips.processor",
    "ClipSample": "nl3d.data.clips.dataset",
    "ReIDDataset": "nl3d.data.dataset",
    "read_dukemtmc_videoreid": "nl3d.data.readers.dukemtmc_videoreid",
    "read_ilids_vid": "nl3d.data.readers.ilids_vid",
    "read_ls_vid": "nl3d.data.readers.ls_vid",
    "read_manifest": "nl3d.data.readers.manifest",
    "read_manifest_tracklets": "nl3d.data.readers.manifest",
    "write_manifest": "nl3d.data.readers.manifest",
    "read_mars": "nl3d.data.readers.mars",
    "read_prid2011": "nl3d.data.readers.prid2011",
    "read_reassociation": "nl3d.data.readers.reassociation",
    "PKSampler": "nl3d.data.clips.samplers",
    "sample_clips": "nl3d.data.clips.sampling",
    "Tracklet": "nl3d.data.tracklets",
    "ClipTransform": "nl3d.data.clips.transforms",
    "normalise_clips": "nl3d.data.clips.processor",
    "read_tree": "nl3d.data.readers.tree",
    "register_reader": "nl3d.data.readers.registry",
}

if TYPE_CHECKING:
    from nl3d.data.clips.dataset import ClipDataset as ClipDataset
    from nl3d.data.clips.dataset import ClipSample as ClipSample
    from nl3d.data.clips.processor import ClipProcessor as ClipProcessor
    from nl3d.data.clips.processor import normalise_clips as normalise_clips
    from nl3d.data.clips.samplers import PKSampler as PKSampler
    from nl3d.data.clips.sampling import sample_clips as sample_clips
    from nl3d.data.clips.transforms import ClipTransform as ClipTransform
    from nl3d.data.dataset import ReIDDataset as ReIDDataset
    from nl3d.data.readers.boxes import Boxes as Boxes
    from nl3d.data.readers.boxes import BoxOptions as BoxOptions
    from nl3d.data.readers.boxes import BoxTrack as BoxTrack
    from nl3d.data.readers.boxes import read_boxes as read_boxes
    from nl3d.data.readers.dukemtmc_videoreid import read_dukemtmc_videoreid as read_dukemtmc_videoreid
    from nl3d.data.readers.ilids_vid import read_ilids_vid as read_ilids_vid
    from nl3d.data.readers.ls_vid import read_ls_vid as read_ls_vid
    from nl3d.data.readers.manifest import read_manifest as read_manifest
    from nl3d.data.readers.manifest import read_manifest_tracklets as read_manifest_tracklets
    from nl3d.data.readers.manifest import write_manifest as write_manifest
    from nl3d.data.readers.mars import read_mars as read_mars
    from nl3d.data.readers.prid2011 import read_prid2011 as read_prid2011
    from nl3d.data.readers.reassociation import read_reassociation as read_reassociation
    from nl3d.data.readers.registry import register_reader as register_reader
    from nl3d.data.readers.tree import read_tree as read_tree
    from nl3d.data.tracklets import Tracklet as Tracklet

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nl3d.data' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
