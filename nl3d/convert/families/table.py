"""The table of families, and the choice of a file's."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import takewhile

from nl3d.convert.families.ap3d import AP3D
from nl3d.convert.families.fastreid import FASTREID_AGW, FASTREID_BOT
from nl3d.convert.families.hara import HARA
from nl3d.convert.families.mctrack import MCTRACK
from nl3d.convert.families.mmaction2 import MMACTION2
from nl3d.convert.families.nonlocal_net import NONLOCAL_NET
from nl3d.convert.families.own import OWN
from nl3d.convert.families.pyslowfast import PYSLOWFAST
from nl3d.convert.families.pytorchvideo import PYTORCHVIDEO
from nl3d.convert.families.stenvan import STENVAN
from nl3d.convert.families.strong_baseline import STRONG_BASELINE
from nl3d.convert.families.torchreid import TORCHREID
from nl3d.convert.families.torchvision import TIMM, TORCHVISION
from nl3d.convert.family import Family, other_network
from nl3d.convert.read import ForeignCheckpoint

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        OWN, TORCHVISION, TIMM, TORCHREID, FASTREID_BOT, FASTREID_AGW, STRONG_BASELINE, MCTRACK, AP3D, STENVAN,
        HARA, PYTORCHVIDEO, PYSLOWFAST, NONLOCAL_NET, MMACTION2,
    )
}  # fmt: skip


_MOST_TENSORS = 10_000  # a ResNet-200 with non-local blocks has fewer than 2,000


def register_family(family: Family) -> None:
    """Add a family of checkpoints to those that :func:`nl3d.from_checkpoint` reads.

    Args:
        family: The family; its name must be new.

    Raises:
        ValueError: If there is a family of that name.
    """
    if family.name in FAMILIES:
        raise ValueError(f"family must have a name of its own, got {family.name!r}, which is registered already")
    FAMILIES[family.name] = family


def families() -> dict[str, str]:
    """Names of all families of checkpoints that :func:`nl3d.from_checkpoint` reads, and what each is."""
    return {name: family.about for name, family in FAMILIES.items()}


def find_family(checkpoint: ForeignCheckpoint, family: str | None) -> tuple[Family, ForeignCheckpoint]:
    """Infer the family from keys and shapes, or check the one that is named.

    Returns:
        The family, and the checkpoint, without a prefix of all keys where the named family's files have none.
    """
    if len(checkpoint.tensors) > _MOST_TENSORS:
        raise ValueError(
            f"{checkpoint.source} must hold a ResNet, of at most {_MOST_TENSORS} tensors, but holds "
            f"{len(checkpoint.tensors)}"
        )
    fitting = [entry for entry in FAMILIES.values() if entry.fits(checkpoint.tensors)]
    bare = _without_prefix(checkpoint)
    if family is not None:
        if family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
        if FAMILIES[family] in fitting:
            return FAMILIES[family], checkpoint
        if bare is not None and FAMILIES[family].fits(bare.tensors):
            return FAMILIES[family], bare
        raise ValueError(
            f"family must be one whose files have the keys and shapes of {checkpoint.source}, got {family!r}; "
            + (f"they are those of {_names(fitting)}" if fitting else _no_family(checkpoint))
        )
    inferred = [entry for entry in fitting if not entry.requires_explicit_family and entry.infer_if(checkpoint)]
    if len(inferred) == 1:
        return inferred[0], checkpoint
    if inferred:
        raise ValueError(
            f"family must be given, because {checkpoint.source} may be of {_names(inferred)}, whose keys and shapes "
            f"are the same but whose networks are not; pass family={inferred[0].name!r} or "
            f"family={inferred[1].name!r}"
        )
    possible = [entry for entry in fitting if not entry.requires_explicit_family]
    if bare is not None:
        possible += [entry for entry in FAMILIES.values() if entry.fits(bare.tensors) and entry not in fitting]
    if possible:
        raise ValueError(
            f"family must be given, because {checkpoint.source} lacks the keys or the order that show which project "
            f"wrote it; pass family= with the project that it is from: {_names(possible)}"
            + "".join(f" ({entry.name}: not {entry.ambiguous_with})" for entry in possible if entry.ambiguous_with)
        )
    raise ValueError(
        f"{checkpoint.source} must be of a known family ({', '.join(FAMILIES)}), but {_no_family(checkpoint)}"
    )


def _without_prefix(checkpoint: ForeignCheckpoint) -> ForeignCheckpoint | None:
    """Take off a prefix that all keys have, such as ``backbone.``; None without one."""
    first, last = min(checkpoint.tensors).split("."), max(checkpoint.tensors).split(".")
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first[:-1], last, strict=False))
    prefix = "".join(f"{word}." for word, _ in shared)
    if not prefix or len(checkpoint.tensors) < 2:
        return None
    tensors = {key.removeprefix(prefix): tensor for key, tensor in checkpoint.tensors.items()}
    return replace(checkpoint, tensors=tensors, prefix=checkpoint.prefix + prefix)


def _names(entries: list[Family]) -> str:
    return " or ".join(repr(entry.name) for entry in entries)


def _no_family(checkpoint: ForeignCheckpoint) -> str:
    if betrayed := other_network(checkpoint.tensors):
        return betrayed
    nearest, rest = min(
        ((entry, _unknown(entry, checkpoint)) for entry in FAMILIES.values()), key=lambda pair: len(pair[1])
    )
    if 2 * len(rest) < len(checkpoint.tensors) and rest:
        return f"of {nearest.name!r}, the nearest, no file has {rest[0]!r}"
    return f"its keys are of none: {', '.join(map(repr, list(checkpoint.tensors)[:4]))}"


def _unknown(family: Family, checkpoint: ForeignCheckpoint) -> list[str]:
    """Keys that no rule of the family knows, or that none of its files has."""
    try:
        moved, _ = family.prepare(checkpoint.tensors)
    except ValueError:
        return list(checkpoint.tensors)
    foreign = [key for key in moved if any(re.fullmatch(pattern, key) for pattern in family.excluded_keys)]
    return foreign or [key for key in moved if not any(re.fullmatch(pattern, key) for pattern, _ in family.rules)]
