"""All families, and which of them a file is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from nl3d.convert.families.fair import NONLOCAL_NET, PYSLOWFAST
from nl3d.convert.families.image import TIMM, TORCHVISION
from nl3d.convert.families.own import OWN
from nl3d.convert.families.reid import AP3D, FASTREID_AGW, FASTREID_BOT, MCTRACK, STRONG_BASELINE, TORCHREID
from nl3d.convert.families.video import HARA, MMACTION2, PYTORCHVIDEO
from nl3d.convert.family import Family, other_network
from nl3d.convert.read import ForeignCheckpoint

FAMILIES: Mapping[str, Family] = MappingProxyType({
    family.name: family
    for family in (
        OWN, TORCHVISION, TIMM, TORCHREID, FASTREID_BOT, FASTREID_AGW, STRONG_BASELINE, MCTRACK, AP3D,
        HARA, PYTORCHVIDEO, PYSLOWFAST, NONLOCAL_NET, MMACTION2,
    )
})  # fmt: skip


def families() -> dict[str, str]:
    """Names of all families of checkpoints that :func:`nl3d.from_checkpoint` reads, and what each is."""
    return {name: family.about for name, family in FAMILIES.items()}


def find_family(checkpoint: ForeignCheckpoint, family: str | None) -> Family:
    """Tell the family from names and shapes, or check the one that is told.

    Raises:
        ValueError: If the family is unknown or does not fit the file, if no family fits, or if several do.
    """
    fitting = [entry for entry in FAMILIES.values() if entry.fits(checkpoint.tensors)]
    if family is not None:
        if family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
        if FAMILIES[family] not in fitting:
            raise ValueError(
                f"family must be one whose files have the keys and shapes of {checkpoint.source}, got {family!r}; "
                + (f"they are those of {_names(fitting)}" if fitting else _no_family(checkpoint))
            )
        return FAMILIES[family]
    fitting = [entry for entry in fitting if not entry.told_only]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise ValueError(
            f"{checkpoint.source} must be of a known family ({', '.join(FAMILIES)}), but {_no_family(checkpoint)}"
        )
    raise ValueError(
        f"family must be given, because {checkpoint.source} may be of {_names(fitting)}, whose keys and shapes are the "
        f"same but whose networks are not: say which with family={fitting[0].name!r} or family={fitting[1].name!r}"
    )


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
        moved, _ = family.relocate(checkpoint.tensors)
    except ValueError:
        return list(checkpoint.tensors)
    foreign = [key for key in moved if any(re.fullmatch(pattern, key) for pattern in family.unlike)]
    return foreign or [key for key in moved if not any(re.fullmatch(pattern, key) for pattern, _ in family.rules)]
