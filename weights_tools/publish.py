"""A converted file to a repository of the Hub: weights, configuration and card in one commit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from nl3d.convert.checkpoint import from_checkpoint
from nl3d.convert.read import read_checkpoint
from nl3d.models.resnet3d import ResNet3d
from weights_tools.convert import read_metadata
from weights_tools.describe import count_classes

_FAILURES: tuple[type[Exception], ...] = (OSError, RuntimeError, *HfHubHTTPError.__bases__)
"""What the Hub's client raises: the bases are those of the HTTP client underneath."""


@dataclass(frozen=True)
class Publication:
    """What goes into the commit: path in the repository to the file's bytes, or the file on disk."""

    repo_id: str
    files: dict[str, bytes | Path]

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: content.stat().st_size if isinstance(content, Path) else len(content)
            for name, content in self.files.items()
        }


def card(path: str | Path, *, repo_id: str = "ORG/NAME") -> str:
    """Model card of a converted file: its network, preprocessing, origin and licence."""
    metadata = read_metadata(path)
    text = str(_described(path).generate_model_card()).replace("ORG/NAME", repo_id)
    return text.rstrip() + (
        "\n\n## Provenance\n\n"
        f"- Converted from `{metadata['source']}` (family `{metadata['family']}`)\n"
        f"- sha256 of that file: `{metadata['sha256']}`\n"
        f"- Licence of the weights: {metadata['license']}\n"
        f"- Converted by nl3d {metadata.get('nl3d_version', '')}\n"
    )


def prepare(path: str | Path, repo_id: str) -> Publication:
    """Gather the three files of a publication; nothing is sent."""
    text = card(path, repo_id=repo_id)
    config = json.dumps(_described(path).hub_config(), indent=2, sort_keys=True) + "\n"
    return Publication(
        repo_id, {"model.safetensors": Path(path), "config.json": config.encode(), "README.md": text.encode()}
    )


def publish(publication: Publication, *, private: bool = False, message: str = "Publish weights") -> str:
    """Create the repository if it is not there, and send all files in one commit.

    Returns:
        Full hash of the commit, to pin the weights by.
    """
    api = HfApi()
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in publication.files.items()
    ]
    try:
        api.create_repo(publication.repo_id, private=private, exist_ok=True)
        return api.create_commit(publication.repo_id, operations, commit_message=message).oid
    except _FAILURES as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise ConnectionError(
            f"{publication.repo_id} could not be published ({reason}); set HF_TOKEN to a token that may write there"
        ) from error


def _described(path: str | Path) -> ResNet3d:
    """Network of a converted file, on the meta device."""
    checkpoint = read_checkpoint(path)
    with torch.device("meta"):
        shapes = {key: torch.empty_like(tensor) for key, tensor in checkpoint.tensors.items()}
    model = from_checkpoint(
        {"state_dict": shapes, **checkpoint.extras}, family="nl3d", num_classes=count_classes(checkpoint, "nl3d")
    )
    return model
