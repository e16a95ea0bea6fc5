"""Keywords of ResNet3d that a caller may set against what a family's record says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict


class Overrides(TypedDict, total=False):
    """Keywords of :class:`~nl3d.models.resnet3d.ResNet3d`, of the same names and meanings."""

    block: str
    block_counts: Sequence[int]
    stem_time_kernel: int
    stem_stride: int | Sequence[int]
    stem_relu: bool
    stem_pool_kernel: int | Sequence[int]
    stem_pool_stride: int | Sequence[int]
    stem_pool_padding: int | Sequence[int]
    stem_pool_ceil_mode: bool
    layer1_time_pool: int
    time_strides: Sequence[int]
    last_stride: int
    base_width: int
    in_channels: int
    time_padding: str
    shortcut: str
    norm_eps: float
    non_local_mode: str
    non_local_scale: bool
    non_local_subsample: str | None
    non_local_inner_channels: int | Mapping[str, int] | None
    non_local_time_window: int | Mapping[str, int] | None
    head: str
    pool: str
    embedding_dim: int
    negative_slope: float
    dropout: float
    classifier_bias: bool
    projection_dim: int | None
