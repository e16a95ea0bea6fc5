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

Settled: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""Keywords of the network, and of its preprocessing."""


def nothing_moves(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Keys that need no moving."""
    return dict(tensors), {}


def always(tensors: Tensors) -> bool:
    """Nothing else must be so."""
    return True


def nothing_more(tensors: Tensors, checkpoint: ForeignCheckpoint) -> Settled:
    """No tensor and no word of the file tells more."""
    return {}, {}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Checkpoints of one project: their names, and what their networks do that no tensor tells.

    Attributes:
        name: What ``family=`` calls it.
        about: Project and networks, for the list.
        marks: Patterns that each match the whole of some key.
        unlike: Patterns that match no key.
        rank: Axes of the convolutions' kernels: 4 for images, 5 for clips, ``None`` for either.
        may_be: What else must be so for the family to be a possible one.
        told_only: Not found by itself, because another family has the same files; only told.
        rules: How keys are renamed.
        biased: Patterns of our layers that always have a bias there, though ours have none or may have none.
        relocate: Renames, before the rules, what no single key tells, and says what that reveals of the network.
        network: Keywords of :class:`~nl3d.models.resnet3d.ResNet3d` that no tensor tells.
        settle: More of them, and of ``preprocessing``, from the renamed tensors and what else the file holds.
        is_reid: Whether the network was trained to tell persons apart, so that its own neck is worth keeping.
        preprocessing: How its clips are prepared, for ``pretrained_cfg``.
        url: Where the project is.
        license: SPDX identifier of its licence, which is all that most say of their weights.
    """

    name: str
    about: str
    marks: tuple[str, ...]
    unlike: tuple[str, ...] = ()
    rank: Literal[4, 5] | None = None
    may_be: Callable[[Tensors], bool] = always
    told_only: bool = False
    rules: Rules
    biased: tuple[str, ...] = ()
    relocate: Callable[[Tensors], tuple[dict[str, Tensor], dict[str, Any]]] = nothing_moves
    network: Mapping[str, Any] = field(default_factory=dict)
    settle: Callable[[Tensors, ForeignCheckpoint], Settled] = nothing_more
    is_reid: bool = False
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    license: str = ""

    def fits(self, tensors: Tensors) -> bool:
        """Whether a file with these tensors may be of this family."""
        ranks = [tensor.ndim for key, tensor in tensors.items() if key.endswith((".weight", "_w")) and tensor.ndim > 3]
        return (
            all(holds(tensors, mark) for mark in self.marks)
            and not any(holds(tensors, mark) for mark in self.unlike)
            and (self.rank is None or 2 * ranks.count(self.rank) > len(ranks))
            and self.may_be(tensors)
        )


BLOCK_OUTPUT = r"layer[1-4]\.non_local\d+\.w_z"
"""Last convolution of a non-local block, whose bias goes into the norm behind it."""


def holds(tensors: Tensors, pattern: str) -> bool:
    """Whether some key matches the pattern wholly."""
    compiled = re.compile(pattern)
    return any(compiled.fullmatch(key) for key in tensors)


# Networks that are often mistaken for a plain ResNet, by what betrays them.
_OTHERS = (
    (r"(?:.*\.)?(?:cls_token|pos_embed|patch_embed\..*)", "a transformer"),
    (r"(?:.*\.)?conv1\.[0-9]\.weight", "a ResNet with a deep stem, such as timm's resnet50d"),
    (r".*(?:pathway1|multipathway).*", "a SlowFast network of two pathways"),
    (r".*\.APM\..*|.*(?:spatial|temporal)_conv3d\..*", "AP3D's appearance-preserving or pseudo-3D convolutions"),
    (r".*\.IN\.weight", "instance norms beside the batch norms (IBN)"),
    (r".*\.se\..*", "squeeze and excitation"),
    (r".*(?:conv1_s|conv1_t|conv_t|conv_xy)\..*", "a (2+1)D network"),
    (r"stem\.0\.weight", "torchvision's video ResNet"),
    (r"features\..*", "a network that is no ResNet"),
)


def other_network(tensors: Tensors) -> str | None:
    """Say of what other network some key is, if it is one that is often met."""
    for pattern, what in _OTHERS:
        if key := next((key for key in tensors if re.fullmatch(pattern, key)), None):
            return f"{key!r} is of {what}, which ResNet3d has no place for"
    return None


def rename_keys(foreign: Tensors, family: Family) -> dict[str, Tensor]:
    """Rename every key by the first rule that matches it, or drop it by one.

    Raises:
        ValueError: If no rule matches a key, two keys land on one name, or a bias is missing that ours lacks.
    """
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
    """Rules of a network whose stem and stages bear torchvision's names behind a prefix."""
    prefix = re.escape(prefix)
    return (
        (rf"{prefix}((?:conv1|bn1)\.\w+)", r"\1"),
        (rf"{prefix}(layer[1-4]\.\d+\.(?:conv[123]|bn[123]|downsample\.[01])\.\w+)", r"\1"),
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
