"""What is known of one project's checkpoints, and the renaming of their keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch import Tensor

from nl3d.convert.read import ForeignCheckpoint

Rules: TypeAlias = tuple[tuple[str, str | None], ...]
"""Foreign key and the key in nl3d, or ``None`` to drop it; the first that matches the whole key wins."""

Tensors: TypeAlias = Mapping[str, Tensor]

Settings: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""Keywords of the network, and of its preprocessing."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Checkpoints of one project: their keys, and what shapes cannot reveal of their networks.

    Attributes:
        name: Value of ``family=``.
        about: Networks of the project, for the list of families.
        required_keys: Patterns that must each match some whole key.
        excluded_keys: Patterns that must match no key.
        rank: Axes of most convolution kernels: 4 for images, 5 for clips, ``None`` for either.
        match: Further condition on the tensors.
        infer_if: Whether the file shows the family beyond doubt; if not, it must be named with ``family=``.
        requires_explicit_family: Whether another family has the same files, so that this one is never inferred.
        ambiguous_with: Files of other networks that this family's keys and shapes also fit, for the question.
        rules: How keys are renamed.
        biased: Patterns of our layers that always have a bias in these files.
        prepare: Renames, before the rules, keys whose new name depends on other keys; returns network keywords too.
        network: Keywords of :class:`~nl3d.models.resnet3d.ResNet3d` that shapes cannot reveal.
        finalize: Further keywords, and preprocessing, from the renamed tensors and the rest of the file.
        is_reid: Whether the network was trained for re-identification, so that its own neck is kept.
        preprocessing: How its clips are prepared, for ``pretrained_cfg``.
        url: Address of the project.
        license: SPDX identifier of the project's licence, usually the only statement about its weights.
    """

    name: str
    about: str
    required_keys: tuple[str, ...]
    excluded_keys: tuple[str, ...] = ()
    rank: Literal[4, 5] | None = None
    match: Callable[[Tensors], bool] = lambda tensors: True
    infer_if: Callable[[ForeignCheckpoint], bool] = lambda checkpoint: True
    requires_explicit_family: bool = False
    ambiguous_with: str = ""
    rules: Rules
    biased: tuple[str, ...] = ()
    prepare: Callable[[Tensors], tuple[dict[str, Tensor], dict[str, Any]]] = lambda tensors: (dict(tensors), {})
    network: Mapping[str, Any] = field(default_factory=dict)
    finalize: Callable[[Tensors, ForeignCheckpoint], Settings] = lambda tensors, checkpoint: ({}, {})
    is_reid: bool = False
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    license: str = ""

    def fits(self, tensors: Tensors) -> bool:
        """Whether a file with these tensors may be of this family."""
        ranks = [tensor.ndim for key, tensor in tensors.items() if key.endswith((".weight", "_w")) and tensor.ndim > 3]
        return (
            all(holds(tensors, mark) for mark in self.required_keys)
            and not any(holds(tensors, mark) for mark in self.excluded_keys)
            and (self.rank is None or 2 * ranks.count(self.rank) > len(ranks))
            and self.match(tensors)
        )


FLAT_BLOCK = r"layer[1-4]\.\d+\.conv1\.weight"
"""First convolution of a residual block under torchvision's names, without a prefix."""

KINETICS = {
    "mean": (0.45, 0.45, 0.45),
    "std": (0.225, 0.225, 0.225),
    "input_size": (3, 224, 224),
    "num_frames": 8,
    "frame_step": 8,
}
"""Preprocessing of most action classifiers."""

BLOCK_OUTPUT = r"layer[1-4]\.non_local\d+\.w_z"
"""Last convolution of a non-local block, before the norm that takes its bias."""


def holds(tensors: Tensors, pattern: str) -> bool:
    """Whether some key matches the pattern wholly."""
    compiled = re.compile(pattern)
    return any(compiled.fullmatch(key) for key in tensors)


# Networks that are often taken for a plain ResNet, and the keys that show it.
_OTHERS = (
    (r"(?:.*\.)?layer[1-4]\.\d+\.conv1\.0\.(?:0\.)?weight", "torchvision's video ResNet (r3d, mc3 or r2plus1d)"),
    (
        r"(?:.*\.)?(?:cls_token|pos_embed|class_embedding|patch_embed\..*|pos_encoding\..*|.*\.attn\.qkv\..*)",
        "a transformer",
    ),
    (r"(?:.*\.)?features\.\d+\.branch\d\..*", "torchvision's video network S3D"),
    (r"(?:.*\.)?conv1\.[0-9]\.weight", "a ResNet with a deep stem, such as timm's resnet50d"),
    (r".*(?:pathway1|multipathway).*", "a SlowFast network of two pathways"),
    (r".*\.APM\..*|.*(?:spatial|temporal)_conv3d\..*", "AP3D's appearance-preserving or pseudo-3D convolutions"),
    (r".*\.IN\.weight", "instance norms beside the batch norms (IBN)"),
    (r".*\.se\..*", "squeeze and excitation"),
    (r".*(?:conv1_s|conv1_t|conv_t|conv_xy)\..*", "a (2+1)D network"),
    (r"stem\.0\.weight", "a network with a stem of its own"),
    (r"features\..*", "a network that is no ResNet"),
)


def other_network(tensors: Tensors) -> str | None:
    """Name the other network that some key belongs to, if it is a common one."""
    for pattern, what in _OTHERS:
        if key := next((key for key in tensors if re.fullmatch(pattern, key)), None):
            return f"{key!r} is of {what}, which ResNet3d has no place for"
    return None


def rename_keys(foreign: Tensors, family: Family) -> dict[str, Tensor]:
    """Rename every key by the first rule that matches it, or drop it by one."""
    rules = [(re.compile(pattern), replacement) for pattern, replacement in family.rules]
    renamed: dict[str, Tensor] = {}
    for key, tensor in foreign.items():
        match, replacement = next(((match, to) for rule, to in rules if (match := rule.fullmatch(key))), (None, None))
        if match is None:
            raise ValueError(
                f"the file must hold a plain ResNet of family {family.name!r}, but "
                + (other_network({key: tensor}) or f"no rule knows {key!r} of shape {tuple(tensor.shape)}")
            )
        if replacement is None:
            continue
        target = match.expand(replacement)
        if target in renamed:
            raise ValueError(f"the file must name each tensor once, but {key!r} lands on {target!r}, already taken")
        renamed[target] = tensor
    for key in renamed:
        layer, _, last = key.rpartition(".")
        bias = f"{layer}.bias"
        if last == "weight" and bias not in renamed and any(re.fullmatch(pattern, layer) for pattern in family.biased):
            raise ValueError(f"the file must hold a bias of {layer}, as files of {family.name!r} do, but does not")
    return renamed


def resnet_rules(prefix: str = "") -> Rules:
    """Rules of a network whose stem and stages have torchvision's names behind a prefix, given as a pattern."""
    return (
        (rf"{prefix}((?:conv1|bn1)\.\w+)", r"\1"),
        (rf"{prefix}(layer[1-4]\.\d+\.(?:conv[123]|bn[123]|downsample\.[01])\.\w+)", r"\1"),
    )


def stages_from_2(*rules: tuple[str, str]) -> Rules:
    """Rules of a project that counts the stages from 2: ``#`` is a stage's number, in the replacement ours."""
    return tuple(
        (pattern.replace("#", str(layer + 1)), replacement.replace("#", str(layer)))
        for layer in range(1, 5)
        for pattern, replacement in rules
    )


def has_kernel(tensors: Tensors, pattern: str, *, spatial: bool) -> bool:
    """Whether a kernel of matching name spans time, and besides covers space (3x3) or does not (1x1)."""
    compiled = re.compile(pattern)
    return any(
        tensor.ndim == 5 and tensor.shape[2] > 1 and (tensor.shape[3] > 1) == spatial
        for key, tensor in tensors.items()
        if compiled.fullmatch(key)
    )


def blocks_of(tensors: Tensors, pattern: str) -> dict[int, list[int]]:
    """Numbers of the residual blocks in each stage, from the two groups (stage, block) of a pattern."""
    compiled = re.compile(pattern)
    found: dict[int, set[int]] = {}
    for key in tensors:
        if match := compiled.match(key):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    return {stage: sorted(blocks) for stage, blocks in sorted(found.items())}


def place_after_last_blocks(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Move non-local blocks stored beside the stages, as ``NL_2.0``, after the last residual blocks of each stage.

    ``prefix`` is the pattern of what precedes ``layer1`` and ``NL_1``.
    """
    counts = {stage: len(blocks) for stage, blocks in blocks_of(tensors, rf"{prefix}layer(\d)\.(\d+)\.").items()}
    beside = {stage: len(blocks) for stage, blocks in blocks_of(tensors, rf"{prefix}NL_(\d)\.(\d+)\.").items()}
    moved: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if match := re.fullmatch(rf"{prefix}NL_(\d)\.(\d+)\.(.+)", key):
            stage = int(match[1])
            key = f"layer{stage}.non_local{counts.get(stage, 0) - beside[stage] + int(match[2])}.{match[3]}"
        moved[key] = tensor
    return moved


OUTPUT_RULES: Rules = (
    (r"(layer[1-4]\.non_local\d+\.)W\.0\.(weight|bias)", r"\1w_z.\2"),
    (r"(layer[1-4]\.non_local\d+\.)W\.1\.(\w+)", r"\1bn.\2"),
)
NON_LOCAL_RULES: Rules = (*OUTPUT_RULES, (r"(layer[1-4]\.non_local\d+\.(?:theta|phi|g)\.\w+)", r"\1"))
"""Rules of blocks whose output layers are called ``W.0`` and ``W.1``."""
