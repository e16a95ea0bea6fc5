"""Report of an inflated network: each layer before and after."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from torch import nn

from nl3d.inflate.clips import Behaviour, DropsClips, StridesTime, TakesClips, ThenClips


class InflationRow(NamedTuple):
    """One layer: its name, what it was, what it is now, and the frames that its kernel spans."""

    name: str
    before: str
    after: str
    time_kernel: int


class InflationReport(tuple[InflationRow, ...]):
    """Rows of every layer; as text, a table of the convolutions and a count of what runs frame by frame."""

    def __str__(self) -> str:
        rows = [row for row in self if row.after != "frame by frame"]
        blind = Counter(row.before for row in self if row.after == "frame by frame")
        names = max((len(row.name) for row in rows), default=0)
        befores = max((len(row.before) for row in rows), default=0)
        lines = [f"{row.name:<{names}}  {row.before:<{befores}}  ->  {row.after}" for row in rows]
        return "\n".join([*lines, "frame by frame: " + ", ".join(f"{kind} x{n}" for kind, n in sorted(blind.items()))])


def describe(layer: Any) -> str:
    """Type of a layer with its kernel, as ``Conv2d 3x3``."""
    kind = next((cls for cls in type(layer).__mro__ if not issubclass(cls, Behaviour)), type(layer)).__name__
    sizes = getattr(layer, "kernel_size", None)
    return f"{kind} {'x'.join(map(str, sizes))}" if isinstance(sizes, tuple) else kind


def report(model: nn.Module) -> InflationReport:
    """List every layer of an inflated network."""
    if not isinstance(model, TakesClips):
        raise TypeError(f"model must come from Inflate2dTo3d, got {type(model).__name__}")
    rows: list[InflationRow] = []
    inside: tuple[str, ...] = ()
    for name, layer in model.named_modules():
        if inside and name.startswith(inside):
            continue
        before = getattr(layer, "inflated_from", None)
        if isinstance(layer, StridesTime):
            rows.append(InflationRow(name, type(layer).recipe[0].__name__, f"every {layer.time_stride} frames", 1))
        if isinstance(layer, ThenClips):
            rows.append(InflationRow(f"{name}.non_local", "new", type(layer.non_local).recipe[0].__name__, 1))  # type: ignore[attr-defined]
            inside = (*inside, f"{name}.non_local")
        if before is not None:
            rows.append(_inflated_row(name, before, layer))
            inside = (*inside, f"{name}.")
        elif isinstance(layer, DropsClips):
            rows.append(InflationRow(name, describe(layer), "clip by clip", 1))
        elif not any(True for _ in layer.children()):
            rows.append(InflationRow(name, describe(layer), "frame by frame", 1))
    return InflationReport(rows)


def _inflated_row(name: str, before: str, layer: Any) -> InflationRow:
    temporal = getattr(layer, "temporal", None)
    if temporal is None:
        after, sizes = describe(layer), getattr(layer, "kernel_size", (1,))
    elif hasattr(layer, "spatial"):
        after, sizes = f"{describe(layer)} {describe(temporal)} + {describe(layer.spatial)}", temporal.kernel_size
    else:
        after, sizes = f"{describe(temporal)}, then {describe(layer)}", temporal.kernel_size
    return InflationRow(name, before, after, sizes[0])
