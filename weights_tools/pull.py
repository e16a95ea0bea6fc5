"""A record of the zoo, or a repository, into the Hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from nl3d.hub.fetch import fetch
from nl3d.hub.pretrained import WEIGHTS_FILE
from nl3d.weights.open import HUB_PREFIX, bundled_file, fetch_spec
from nl3d.weights.records import find_spec


def pull(name: str) -> Path:
    """Fetch a file and give its path in the cache, or in the package where it comes with it.

    Args:
        name: ``"resnet3d50_nl.imagenet"`` for a record of the zoo, or ``"hf-hub:org/name[@revision]"``.
    """
    if name.startswith(HUB_PREFIX):
        repo_id, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
        return fetch(repo_id, WEIGHTS_FILE, revision=revision or None)
    match = re.fullmatch(r"(\w+)\.(\w+)", name)
    if match is None:
        raise ValueError(f"name must be like 'resnet3d50_nl.imagenet' or 'hf-hub:org/name', got {name!r}")
    spec = find_spec(*match.groups())
    if spec.bundled:
        return bundled_file(spec)
    return fetch_spec(spec)
