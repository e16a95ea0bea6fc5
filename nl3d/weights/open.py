"""Open what ``weights=`` names: a record, a file, a folder or a repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from nl3d.convert.families.table import FAMILIES
from nl3d.hub.fetch import fetch
from nl3d.hub.fill import read_safetensors
from nl3d.hub.pretrained import CONFIG_FILE, WEIGHTS_FILE, clip_description, parse_config, read_config
from nl3d.unpickle import is_pickled
from nl3d.weights.packaged import packaged_spec, read_packaged
from nl3d.weights.records import WeightsSpec, find_spec, has_spec

HUB_PREFIX = "hf-hub:"
INFLATED_PREFIX = "inflated:"
"""What precedes timm's name in the architecture of an inflated network."""
BUNDLED_MODEL = "resnet3d18_nl"
BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the weights in the package: one folder per network, as ``save_pretrained`` writes it."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a file with their description.

    Attributes:
        source: Value of ``weights=``.
        tensors: The tensors, under the file's own keys.
        cfg: Entries of the network's ``pretrained_cfg``: clip size, mean, deviation, licence, origin.
        config: The config.json beside the file, empty without one.
    """

    source: str
    tensors: Mapping[str, Tensor]
    cfg: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignFile:
    """A file in another project's names, to be converted.

    Attributes:
        source: Value of ``weights=``.
        path: Path of the file.
        family: Project that wrote it; ``None`` to infer it from the keys.
        cfg: As of :class:`Checkpoint`.
    """

    source: str
    path: Path
    family: str | None = None
    cfg: Mapping[str, Any] = field(default_factory=dict)


def open_weights(model: str, weights: str, *, cache_dir: str | Path | None = None) -> Checkpoint | ForeignFile:
    """Find, fetch if need be, and read the checkpoint that ``weights=`` names.

    Args:
        model: Name of the network's factory.
        weights: Name of a record, ``"hf-hub:org/name[@revision]"``, path of a file of any family, or of a folder that
            ``save_pretrained`` wrote.
        cache_dir: The Hub's cache, if not the usual one.
    """
    if weights.startswith(HUB_PREFIX):
        return _open_repository(weights, cache_dir=cache_dir)
    path = Path(weights)
    if not has_spec(model, weights):
        if path.is_dir():
            return _with_config(weights, read_safetensors(path / WEIGHTS_FILE, copy=True), path / CONFIG_FILE)
        if path.is_file() or path.suffix or len(path.parts) > 1:
            return _open_file(path)
    spec = find_spec(model, weights)
    if spec.bundled:
        path = bundled_file(spec)
        checkpoint = _with_config(weights, read_safetensors(path), path.with_name(CONFIG_FILE))
        return replace(checkpoint, cfg={**checkpoint.cfg, **spec_cfg(spec)})
    fetched = fetch_spec(spec, cache_dir=cache_dir)
    if spec.is_foreign:
        return ForeignFile(weights, fetched, spec.family, spec_cfg(spec))
    return Checkpoint(weights, read_safetensors(fetched), cfg=spec_cfg(spec))


def open_own_weights(weights: str) -> Checkpoint | None:
    """Open weights that name their own network: ``"bundled"``, ``"imagenet-lite0"``, a folder, a file or a repository.

    Returns:
        The checkpoint, with the name of its network in ``config["architecture"]``; ``None`` for other weights.
    """
    if spec := packaged_spec(weights):
        return Checkpoint(weights, read_packaged(spec), spec_cfg(spec), {"architecture": spec.models[0]})
    if weights != "bundled" and not weights.startswith(HUB_PREFIX) and not Path(weights).exists():
        return None
    opened = open_weights(BUNDLED_MODEL, weights)
    return opened if isinstance(opened, Checkpoint) and "architecture" in opened.config else None


def fetch_spec(spec: WeightsSpec, *, cache_dir: str | Path | None = None) -> Path:
    """Return the path of a record's file in the Hub's cache, downloaded if it is not there."""
    if not spec.is_fetched or spec.repo_id is None:
        address = spec.url or f"https://huggingface.co/{spec.repo_id}"
        raise ValueError(
            f"weights {spec.name!r} are not fetched by nl3d, since no hash of {spec.filename} is known: download it "
            f"from {address} by hand and pass the file's path"
        )
    return fetch(spec.repo_id, spec.filename, revision=spec.revision, sha256=spec.sha256, cache_dir=cache_dir)


def bundled_file(spec: WeightsSpec) -> Path:
    """Return the path of a record's weights in the package."""
    return BUNDLED / spec.models[0] / spec.filename


def spec_cfg(spec: WeightsSpec) -> dict[str, Any]:
    """Describe a record's clips and origin under the keys of timm's ``pretrained_cfg``."""
    frames, height, width = spec.clip_size
    return {
        "tag": spec.name,
        "hf_hub_id": f"{spec.repo_id}@{spec.revision}" if spec.repo_id else None,
        "hf_hub_filename": spec.filename,
        "file": str(bundled_file(spec)) if spec.bundled else None,
        "input_size": (3, height, width),
        "num_frames": frames,
        "frame_step": spec.frame_step,
        "mean": spec.mean,
        "std": spec.std,
        "license": spec.license.lower(),  # timm and the Hub write SPDX identifiers small
        "description": f"{spec.origin}; {spec.accuracy}",
        "origin_url": spec.url or (f"https://huggingface.co/{spec.repo_id}" if spec.repo_id else None),
    }


def _open_file(path: Path) -> Checkpoint | ForeignFile:
    """Open a single file; one that nl3d wrote contains its config."""
    if path.is_file() and (path.suffix != ".safetensors" or is_pickled(path)):
        return ForeignFile(str(path), path)
    tensors = read_safetensors(path, copy=True)
    with safe_open(path, framework="pt") as file:
        config = parse_config((file.metadata() or {}).get("config", "{}"), path)
    if not config and not _in_our_names(tensors):
        return ForeignFile(str(path), path)
    return Checkpoint(str(path), tensors, cfg=clip_description(config), config=config)


def _in_our_names(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of nl3d's networks, or of image networks that fill them."""
    if any(key.startswith("backbone.") for key in tensors) and any(key.startswith("head.") for key in tensors):
        return True  # a frame-wise network
    return any(FAMILIES[name].fits(tensors) for name in ("nl3d", "torchvision"))


def _open_repository(weights: str, *, cache_dir: str | Path | None) -> Checkpoint:
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", weights.removeprefix(HUB_PREFIX))
    if match is None:
        raise ValueError(f"weights must be 'hf-hub:org/name' or 'hf-hub:org/name@revision', got {weights!r}")
    repo_id, revision = match.groups()
    config = fetch(repo_id, CONFIG_FILE, revision=revision, cache_dir=cache_dir)
    tensors = fetch(repo_id, WEIGHTS_FILE, revision=config.parent.name, cache_dir=cache_dir)  # of the same commit
    return _with_config(weights, read_safetensors(tensors), config)


def _with_config(source: str, tensors: Mapping[str, Tensor], config_path: Path) -> Checkpoint:
    config = read_config(config_path)
    return Checkpoint(source, tensors, cfg=clip_description(config), config=config)
