"""A foreign checkpoint to one safetensors file in nl3d's own names, which says where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import nl3d
from nl3d.convert.checkpoint import from_checkpoint
from nl3d.convert.families.table import find_family
from nl3d.convert.read import read_checkpoint
from nl3d.files import check_output, write_safetensors
from nl3d.models.resnet3d import ResNet3d
from nl3d.weights.records import list_weights
from weights_tools.describe import count_classes


def convert(
    path: str | Path,
    output: str | Path,
    *,
    family: str | None = None,
    num_classes: int | None = None,
    source: str | None = None,
    license: str | None = None,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    **options: Any,
) -> ResNet3d:
    """Convert a checkpoint; the same file and options give the same bytes.

    The file's header holds ``source``, ``sha256`` (of the file converted), ``family``, ``license``, ``nl3d_version``
    and ``config``, from which :func:`nl3d.from_checkpoint` and the factories rebuild the network.

    Args:
        path: The checkpoint.
        output: The safetensors file to write.
        family: As for :func:`nl3d.from_checkpoint`.
        num_classes: Likewise; the file's own classifier is kept if left out, and 0 drops it.
        source: Where the file is published; its name if left out.
        license: SPDX identifier of the weights; that of the zoo's record with this sha256 if left out, else
            ``"unknown"``.
        dtype: Kind of number to store, float32, float16 or bfloat16.
        overwrite: Whether ``output`` may be replaced.
        options: Other keywords of :func:`nl3d.from_checkpoint`.
    """
    output = check_output(output, overwrite=overwrite, inputs=(path,))
    checkpoint = read_checkpoint(path)
    if num_classes is None:
        num_classes = count_classes(checkpoint, family)
    elif num_classes == 0 and not find_family(checkpoint, family)[0].is_reid:
        options.setdefault("head", "linear")  # a fresh bottleneck would put untrained numbers into the file
    model: Any = from_checkpoint(path, family=family, num_classes=num_classes, **options)
    if model.new_tensors:
        raise ValueError(
            f"output must hold what the file holds and no more, but {', '.join(model.new_tensors[:3])} would be fresh; "
            "convert as it is, and add to the network that loads the result"
        )
    digest = file_sha256(path)
    record = next((spec for spec in list_weights() if spec.sha256 == digest), None)
    license = license or (record.license if record else "unknown")
    source = source or Path(path).name
    model.pretrained_cfg.update(license=license.lower(), description=f"converted from {source}")
    metadata = {
        "source": source,
        "sha256": digest,
        "family": str(model.pretrained_cfg["family"]),
        "license": license,
        "nl3d_version": nl3d.__version__,
        "config": json.dumps(model.hub_config(), sort_keys=True),
    }
    tensors = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in model.state_dict().items()
    }
    write_safetensors(output, tensors, metadata)
    return model


def file_sha256(path: str | Path) -> str:
    """Hash of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_metadata(path: str | Path) -> Mapping[str, str]:
    """Header that :func:`convert` wrote."""
    metadata = {key: value for key, value in read_checkpoint(path).extras.items() if isinstance(value, str)}
    if missing := {"source", "sha256", "family", "license", "config"} - metadata.keys():
        raise ValueError(
            f"{str(path)!r} must be written by nl3d-weights convert, but its header lacks {', '.join(sorted(missing))}"
        )
    return metadata
