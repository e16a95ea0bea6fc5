"""Every option of a 3D ResNet, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from nl3d.layers.non_local import NonLocalMode, Subsample
from nl3d.layers.pooling import Pooling
from nl3d.layers.shapes import Size3, check_choice, check_number, check_range, to_3tuple
from nl3d.layers.time_padding import TimePadding
from nl3d.models.layouts import find_layout

STAGES = ("layer1", "layer2", "layer3", "layer4")
MOST_BLOCKS = 1000
"""Residual blocks in one stage, at most: a bound against damaged configuration files, as are the following."""
MOST_FRAMES = 1000
WIDEST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class StemOptions:
    """First convolution and max-pool; as keywords, ``stem_time_kernel``, ``stem_stride`` and so on."""

    time_kernel: int | None = None
    stride: Size3 = (1, 2, 2)
    relu: bool = True
    pool_kernel: Size3 = (1, 3, 3)
    pool_stride: Size3 = (1, 2, 2)
    pool_padding: Size3 = (0, 1, 1)
    pool_ceil_mode: bool = False

    def __post_init__(self) -> None:
        for name, minimum in (("stride", 1), ("pool_kernel", 1), ("pool_stride", 1), ("pool_padding", 0)):
            sizes = to_3tuple(getattr(self, name), name=f"stem_{name}", minimum=minimum)
            for size in sizes:
                check_range(size, minimum, MOST_FRAMES, name=f"stem_{name}")
            object.__setattr__(self, name, sizes)
        if self.time_kernel is not None:
            _check_odd(self.time_kernel, name="stem_time_kernel")
        for name in ("relu", "pool_ceil_mode"):
            check_choice(getattr(self, name), (True, False), name=f"stem_{name}")


@dataclass(frozen=True, kw_only=True)
class NonLocalPlan:
    """Non-local blocks; as keywords, ``non_local`` (their places), ``non_local_mode`` and so on."""

    places: Mapping[str, Sequence[int]] | None = None
    mode: NonLocalMode = "embedded_gaussian"
    scale: bool = False
    subsample: Subsample | Mapping[str, Subsample | None] | None = None
    inner_channels: int | Mapping[str, int] | None = None
    time_window: int | Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        places = self.places if self.places is not None else {}
        if not isinstance(places, Mapping) or any(isinstance(at, (int, str)) for at in places.values()):
            raise ValueError(f"non_local must map stages to block indices, as {{'layer2': (1, 3)}}, got {places!r}")
        object.__setattr__(self, "places", {stage: tuple(numbers) for stage, numbers in places.items()})
        for stage in places:
            check_choice(stage, STAGES, name="non_local's stage")
        for name, most in (("inner_channels", WIDEST), ("time_window", MOST_FRAMES)):
            value = getattr(self, name)
            by_stage = value if isinstance(value, Mapping) else {STAGES[0]: value}
            for stage, size in by_stage.items():
                check_choice(stage, STAGES, name=f"non_local_{name}'s stage")
                if size is not None:
                    check_range(size, 1, most, name=f"non_local_{name}")
        if isinstance(self.subsample, Mapping):
            for stage in self.subsample:
                check_choice(stage, STAGES, name="non_local_subsample's stage")

    def of_stage(self, stage: str) -> dict[str, Any]:
        """Keywords of the :class:`~nl3d.NonLocalBlock3d` of a stage."""
        kept: dict[str, Any] = {"mode": self.mode, "scale": self.scale}
        for name in ("subsample", "inner_channels", "time_window"):
            value = getattr(self, name)
            kept[name] = value.get(stage) if isinstance(value, Mapping) else value
        return kept


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Head; as keywords, ``head`` (its kind) and the others under their own names."""

    kind: Literal["bottleneck", "bnneck", "linear"] = "bottleneck"
    pool: Pooling = "avg"
    embedding_dim: int = 512
    num_classes: int = 0
    negative_slope: float = 0.1
    dropout: float = 0.5
    classifier_bias: bool = False
    projection_dim: int | None = None

    def __post_init__(self) -> None:
        check_choice(self.kind, ("bottleneck", "bnneck", "linear"), name="head")
        check_range(self.embedding_dim, 1, WIDEST, name="embedding_dim")
        check_range(self.num_classes, 0, 100 * WIDEST, name="num_classes")
        check_number(self.negative_slope, -1e6, 1e6, name="negative_slope")
        check_number(self.dropout, 0, 1, name="dropout")
        if self.projection_dim is not None:
            check_range(self.projection_dim, 1, WIDEST, name="projection_dim")


@dataclass(frozen=True, kw_only=True)
class ResNet3dOptions:
    """All options of :class:`~nl3d.models.resnet3d.ResNet3d`, which describes them, in three parts and the trunk's own.

    Users, configuration files and converters write them flat, as keywords; :meth:`from_flat` and :meth:`flat` convert.

    Example:
        >>> options = ResNet3dOptions.from_flat(stem_stride=2, non_local={"layer2": (1, 3)}, head="bnneck")
        >>> options.stem.stride, options.non_local.places, options.flat()["head"]
        ((2, 2, 2), {'layer2': (1, 3)}, 'bnneck')
    """

    block: Literal["bottleneck", "basic"] = "bottleneck"
    block_counts: Sequence[int] = (3, 4, 6, 3)
    layout: str = "separable"
    time_kernel: int | Sequence[Sequence[int]] = 3
    layer1_time_pool: int = 1
    time_strides: Sequence[int] = (1, 1, 1, 1)
    last_stride: int = 2
    base_width: int = 64
    in_channels: int = 3
    time_padding: TimePadding = "zeros"
    shortcut: Literal["conv", "pad"] = "conv"
    norm_eps: float = 1e-5
    stem: StemOptions = field(default_factory=StemOptions)
    non_local: NonLocalPlan = field(default_factory=NonLocalPlan)
    head: HeadOptions = field(default_factory=HeadOptions)

    def __post_init__(self) -> None:
        check_choice(self.block, ("bottleneck", "basic"), name="block")
        find_layout(self.layout)
        check_choice(self.time_padding, ("zeros", "replicate"), name="time_padding")
        check_choice(self.shortcut, ("conv", "pad"), name="shortcut")
        for name, most in (("block_counts", MOST_BLOCKS), ("time_strides", MOST_FRAMES)):
            values = getattr(self, name)
            if isinstance(values, (int, str)) or len(values) != len(STAGES):
                raise ValueError(f"{name} must be four numbers, one per stage, got {values!r}")
            for value in values:
                check_range(value, 1, most, name=name)
            object.__setattr__(self, name, tuple(values))
        for name, most in (
            ("base_width", WIDEST), ("in_channels", WIDEST), ("last_stride", 64), ("layer1_time_pool", MOST_FRAMES),
        ):  # fmt: skip
            check_range(getattr(self, name), 1, most, name=name)
        check_number(self.norm_eps, 0, 1, name="norm_eps")
        if not isinstance(self.time_kernel, int):
            if not isinstance(self.time_kernel, (list, tuple)) or any(
                isinstance(at, (int, str)) for at in self.time_kernel
            ):
                raise ValueError(f"time_kernel must be a number, or a list per stage, got {self.time_kernel!r}")
            object.__setattr__(self, "time_kernel", tuple(tuple(stage) for stage in self.time_kernel))
        self.time_kernels()
        self.stem_time_kernel()
        for stage, numbers in (self.non_local.places or {}).items():
            count = self.block_counts[STAGES.index(stage)]
            if any(not isinstance(number, int) or not 0 <= number < count for number in numbers):
                raise ValueError(f"non_local must name blocks 0 to {count - 1} of {stage}, got {tuple(numbers)!r}")

    @classmethod
    def from_flat(cls, **keywords: Any) -> ResNet3dOptions:
        """Sort keywords into their parts."""
        parts: dict[str, dict[str, Any]] = {"": {}, "stem": {}, "non_local": {}, "head": {}}
        for keyword, value in keywords.items():
            if keyword not in KEYWORDS:
                raise TypeError(f"ResNet3d() got an unexpected keyword argument {keyword!r}")
            part, name = KEYWORDS[keyword]
            parts[part][name] = value
        own = parts.pop("")
        return cls(**own, **{name: _PARTS[name](**values) for name, values in parts.items()})

    def flat(self) -> dict[str, Any]:
        """All options by keyword, as plain data."""
        return {
            keyword: getattr(getattr(self, part) if part else self, name)
            for keyword, (part, name) in KEYWORDS.items()
        }  # fmt: skip

    def stem_time_kernel(self) -> int:
        """Frames that the stem's kernel spans."""
        if self.stem.time_kernel is not None:
            return self.stem.time_kernel
        if not isinstance(self.time_kernel, int):
            raise ValueError("stem_time_kernel must be given where time_kernel is given block by block, got None")
        return find_layout(self.layout).stem_time_kernel(self.time_kernel)

    def time_kernels(self) -> list[list[int]]:
        """Frames that the temporal kernel of each block of each stage spans."""
        return block_time_kernels(self.time_kernel, self.layout, self.block_counts)


_PARTS: Mapping[str, Any] = MappingProxyType({"stem": StemOptions, "non_local": NonLocalPlan, "head": HeadOptions})
_WHOLE = {("non_local", "places"): "non_local", ("head", "kind"): "head"}
KEYWORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {option.name: ("", option.name) for option in fields(ResNet3dOptions) if option.name not in _PARTS}
    | {
        _WHOLE.get((part, option.name), option.name if part == "head" else f"{part}_{option.name}"): (part, option.name)
        for part, kind in _PARTS.items()
        for option in fields(kind)
    }
)
"""Keyword to the part that holds it (empty for the trunk's own) and its name there."""


def block_time_kernels(
    time_kernel: int | Sequence[Sequence[int]], layout: str, block_counts: Sequence[int]
) -> list[list[int]]:
    """Temporal kernel of each block of each stage."""
    if isinstance(time_kernel, int):
        spans_time = find_layout(layout).spans_time
        kernels = [
            [time_kernel if spans_time(stage, number) else 1 for number in range(count)]
            for stage, count in enumerate(block_counts)
        ]
    else:
        kernels = [list(stage) for stage in time_kernel]
        if [len(stage) for stage in kernels] != list(block_counts):
            raise ValueError(
                f"time_kernel must name one kernel for each of {tuple(block_counts)} blocks, got {kernels}"
            )
    for kernel in {kernel for stage in kernels for kernel in stage}:
        _check_odd(kernel, name="time_kernel")
    return kernels


def _check_odd(frames: Any, *, name: str) -> None:
    check_range(frames, 1, MOST_FRAMES, name=name)
    if frames % 2 == 0:
        raise ValueError(f"{name} must be odd, got {frames}")
