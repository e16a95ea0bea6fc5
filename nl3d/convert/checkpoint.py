"""Any public checkpoint as a 3D ResNet that computes what the original computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nl3d.convert.architecture import fold_into_norms, read_architecture
from nl3d.convert.families.table import find_family
from nl3d.convert.family import Family, rename_keys
from nl3d.convert.layout import choose_layout, flatten_kernels, separate_blocks
from nl3d.convert.read import ForeignCheckpoint, read_checkpoint
from nl3d.hub.fill import fill_model, on_meta
from nl3d.inflate.state_dict import inflate_state_dict
from nl3d.layers.appearance import FrameRegistration
from nl3d.layers.head import ReIDHead
from nl3d.models.options import KEYWORDS
from nl3d.models.resnet3d import ResNet3d

_OWN_ARGUMENTS = ("num_classes", "non_local", "layout", "time_kernel")
_KEYWORDS = tuple(name for name in KEYWORDS if name not in _OWN_ARGUMENTS)
_SHAPED = ("block", "block_counts", "base_width", "in_channels", "shortcut")
"""Keywords that the shapes decide, so that another value cannot be asked for."""


def from_checkpoint(
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    family: str | None = None,
    num_classes: int | None = None,
    non_local: Mapping[str, Sequence[int]] | None = None,
    layout: str | None = None,
    time_kernel: int | Sequence[Sequence[int]] | None = None,
    approximate: bool = False,
    **overrides: Any,
) -> ResNet3d:
    """Load a public 2D or 3D ResNet checkpoint into a network that computes what the original computed.

    The project that wrote the file is detected from its keys and shapes. Depth, widths, layout, temporal kernels and
    non-local places are read off the shapes. What shapes cannot reveal (strides, pools, softmax scale, preprocessing)
    comes from the published network. The load is total: every key is used or dropped by a rule, every tensor of the
    network is filled or named in ``model.new_tensors``. Files are read without running anything that they name.

    ``model.pretrained_cfg`` says how the file's network was fed and, under ``family`` and ``dtype``, what the file was;
    the network itself is float32. It holds nothing that it shares with the file or the state dict.

    Source: not of the paper, but for the inflation (Liao et al. 2018, arXiv:1807.05073, Sec. 3.1).

    Args:
        path_or_state_dict: A safetensors file, a ``.pth`` of ``torch.save``, a Caffe2 or other pickle of numpy arrays,
            or a state dict; bare or as part of a training checkpoint. A state dict of meta tensors gives a network on
            the meta device: a check that costs no memory.
        family: One of :func:`nl3d.convert.families.table.families`, where the file alone does not show it.
        num_classes: The number of classes of the file keeps its classifier and head; another number puts a fresh
            classifier in their place. If left out, or 0, there is no classifier: a person re-identification network
            keeps its own neck and embedding, any other gets a fresh :class:`~nl3d.ReIDHead`.
        non_local: Places of non-local blocks, those of the file among them; the others are new and start as the
            identity.
        layout: ``"separable"``, ``"i3d"`` or ``"full"``. Kernels that do not span time can go into any; a 2D file is
            inflated into it.
        time_kernel: Frames that temporal kernels span. A 2D file stays frame by frame (1) if neither this nor
            ``layout`` is given; with ``layout`` alone it is 3.
        approximate: Whether a ``"full"`` file may go into the ``"separable"`` layout by the nearest kernels; then
            ``model.approximation`` names each and the share of its sum of squares that was kept.
        overrides: Keywords of :class:`~nl3d.models.resnet3d.ResNet3d`, to differ from the published network.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``path_or_state_dict`` is of another kind, or a keyword is unknown.
        ValueError: If the file is cut off or names code, if the family is unknown, not the file's, or one of several
            that it may be, if tensors are missing, left over or of another shape, or if what is asked for is not exact.

    Example:
        >>> import timm
        >>> image = timm.create_model("resnet18", num_classes=10).eval()
        >>> model = from_checkpoint(image.state_dict(), num_classes=10)
        >>> clips = torch.rand(2, 3, 1, 64, 32)
        >>> torch.allclose(model(clips).logits, image(clips.squeeze(2)), atol=1e-5)
        True
    """
    return convert_checkpoint(
        read_checkpoint(path_or_state_dict),
        family=family,
        num_classes=num_classes,
        non_local=non_local,
        layout=layout,
        time_kernel=time_kernel,
        approximate=approximate,
        **overrides,
    )


def convert_checkpoint(
    checkpoint: ForeignCheckpoint,
    *,
    family: str | None = None,
    num_classes: int | None = None,
    non_local: Mapping[str, Sequence[int]] | None = None,
    places_if_none: Mapping[str, Sequence[int]] | None = None,
    layout: str | None = None,
    time_kernel: int | Sequence[Sequence[int]] | None = None,
    approximate: bool = False,
    **overrides: Any,
) -> ResNet3d:
    """Do what :func:`from_checkpoint` does with a file that is read already.

    ``places_if_none`` are places of fresh non-local blocks for a file that holds none, if ``non_local`` is not given.
    """
    _check_keywords(overrides)
    if num_classes is not None and num_classes < 0:
        raise ValueError(f"num_classes must be at least 0, got {num_classes}")
    found, checkpoint = find_family(checkpoint, family)
    moved, revealed = found.prepare(checkpoint.tensors)
    tensors = fold_into_norms(rename_keys(moved, found))
    shaped = read_architecture(tensors)
    settings, preprocessing = found.finalize(tensors, checkpoint)
    network = {**found.network, **revealed, **settings, **shaped}

    _check_shaped(shaped, overrides)
    own_places = shaped["non_local"] or {}
    asked_places = places_if_none if non_local is None and not own_places else non_local
    network |= {"non_local": _places(own_places, asked_places)}
    network |= choose_layout(
        shaped,
        is_image=tensors["conv1.weight"].ndim == 4,
        layout=layout,
        time_kernel=time_kernel,
        stem_time_kernel=overrides.pop("stem_time_kernel", None),
        approximate=approximate,
    )
    network = {**network, **overrides}
    head = overrides.get("head")
    network, tensors, new = _with_head(network, tensors, found, (shaped["head"], head), num_classes or 0)
    if network.get("non_local_mode") in ("dot_product", "concatenation") and "non_local_scale" not in overrides:
        network["non_local_scale"] = False  # there is no exponent to scale
    return _build(network, tensors, new, found, {**preprocessing, "dtype": checkpoint.dtype}, own_places)


def _check_keywords(overrides: Mapping[str, Any]) -> None:
    if unknown := sorted(overrides.keys() - set(_KEYWORDS)):
        raise TypeError(
            f"from_checkpoint() got an unexpected keyword argument {unknown[0]!r}; besides its own it takes those of "
            f"ResNet3d: {', '.join(_KEYWORDS)}"
        )


def _check_shaped(shaped: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    for name in _SHAPED:
        own = shaped[name]
        if name in overrides and (tuple(overrides[name]) if isinstance(own, tuple) else overrides[name]) != own:
            raise ValueError(f"{name} must be {own!r}, as in the file, got {overrides[name]!r}; leave it out")


def _places(own: Mapping[str, Sequence[int]], asked: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
    """Non-local places asked for, which must hold all of the file's."""
    places = {stage: tuple(numbers) for stage, numbers in (own if asked is None else asked).items()}
    for stage, numbers in own.items():
        if not set(numbers) <= set(places.get(stage, ())):
            raise ValueError(
                f"non_local must hold the places of the file's own blocks, {dict(own)}, got {places}; what the network "
                "computes depends on them"
            )
    return places


def _with_head(
    network: dict[str, Any],
    tensors: Mapping[str, Tensor],
    family: Family,
    heads: tuple[str, str | None],
    num_classes: int,
) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
    """Keep the file's head where it is asked for or was trained on persons; else let a fresh one be made.

    ``heads`` are the file's and the one that is asked for, if any.
    Returns keywords of the network, tensors without those of a head that is not kept, and modules that may be new.
    """
    classifier = tensors.get("head.classifier.weight")
    keeps_classifier = classifier is not None and num_classes == len(classifier)
    own, asked = heads
    head = asked or (own if family.is_reid or keeps_classifier else "bottleneck")
    width = tensors["head.fc.weight"].shape[0] if own == "bottleneck" else None
    fresh = head != own or (width is not None and network["embedding_dim"] != width)
    network = {**network, "head": head, "num_classes": num_classes}
    dropped = ["head.classifier."] if fresh or not keeps_classifier else []
    dropped += ["head.fc.", "head.bn.", "head.projection."] if fresh else []
    dropped += ["head.pool."] if network.get("pool", "avg") != "gem" else []
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(tuple(dropped))}
    new = ["head.fc", "head.bn", "head.projection"] if fresh else []
    new += ["head.classifier"] if fresh or not keeps_classifier else []
    new += ["head.pool"] if "head.pool.p" not in tensors else []  # a power of 3, which such files leave to the code
    return network, kept, new


def _build(
    network: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    new: Sequence[str],
    family: Family,
    described: Mapping[str, Any],
    own_places: Mapping[str, Sequence[int]],
) -> ResNet3d:
    """Build the network on the meta device, and fill it."""
    with on_meta():
        model = ResNet3d(**network)
    added = [
        f"{stage}.non_local{number}"
        for stage, numbers in network["non_local"].items()
        for number in numbers
        if number not in own_places.get(stage, ())
    ]
    added += [name for name, module in model.named_modules() if isinstance(module, FrameRegistration)]
    tensors, approximation = separate_blocks(tensors, model)
    fill_model(model, inflate_state_dict(flatten_kernels(tensors, model), model), new=[*new, *added])
    if isinstance(model.head, ReIDHead) and "head.fc.weight" in cast(Any, model).new_tensors:
        model.head.reset_parameters()  # as one head, rather than layer by layer
    cast(Any, model).approximation = approximation
    origin = {"family": family.name, "license": family.license, "origin_url": family.url}
    model.pretrained_cfg.update(
        {**family.preprocessing, **{key: word for key, word in origin.items() if word}, **described}
    )
    if (device := torch.get_default_device()).type != "cpu":
        model.to(device)
    return model.eval()
