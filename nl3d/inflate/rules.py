"""Which 2D layer becomes what: a table from type to rule, open to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn

from nl3d.inflate import twins
from nl3d.inflate.twins import TimeKernel

Rule: TypeAlias = Callable[[Any, TimeKernel], nn.Module | None]
"""Takes a 2D layer and what to do about time; gives its twin on clips, or ``None`` for :func:`time_first`."""


def frame_by_frame(layer: nn.Module, kernel: TimeKernel) -> nn.Module:
    """Rule for a type that is right as it is on frames in batches of any size: it does not see time."""
    return layer


def time_first(layer: nn.Module, kernel: TimeKernel) -> None:
    """Rule for a convolution of its own kind: it stays as it is, after a temporal convolution that starts as a mean.

    The layer needs the attributes ``in_channels``, ``groups``, ``kernel_size`` and ``weight``.
    """
    return


KNOWN: dict[type | str, Rule] = {  # foreign types by name, so that nothing needs importing
    nn.Conv2d: twins.plain_conv,
    nn.ConvTranspose2d: frame_by_frame,
    "timm.layers.conv2d_same.Conv2dSame": twins.same_conv,
    "timm.layers.conv2d_same.Conv2dSameExport": twins.same_conv,
    "timm.layers.std_conv.StdConv2d": time_first,
    "timm.layers.std_conv.StdConv2dSame": time_first,
    "timm.layers.std_conv.ScaledStdConv2d": time_first,
    "timm.layers.std_conv.ScaledStdConv2dSame": time_first,
    "timm.layers.cond_conv2d.CondConv2d": time_first,
    "timm.models.volo.VOLO": frame_by_frame,  # owns a position embedding of the shape of a kernel
    "timm.models.visformer.Visformer": frame_by_frame,
}

ALONE: dict[type, Rule] = {  # layers that only need a twin when they are not in a network
    nn.BatchNorm2d: twins.batch_norm,
    nn.InstanceNorm2d: twins.batch_norm,
    nn.MaxPool2d: twins.pool,
    nn.AvgPool2d: twins.pool,
    nn.AdaptiveAvgPool2d: twins.adaptive_pool,
    nn.AdaptiveMaxPool2d: twins.adaptive_pool,
}

DROPS_SAMPLES = ("timm.layers.drop.DropPath", "torchvision.ops.stochastic_depth.StochasticDepth")

# modules whose code reads the sizes of the convolutions they own, and expects two numbers: these stay 2D, after time
READS_SIZES = ("timm.models.davit.Downsample",)

# modules that fold heads or windows into the batch axis of their convolutions, each frame's side by side
FOLDS_INSIDE = ("timm.models.mvitv2.MultiScaleAttention", "timm.models.efficientvit_msra.LocalWindowAttention")

_LIBRARIES = ("torch.", "timm.", "torchvision.", "nl3d.")


def type_name(module: nn.Module | type) -> str:
    """Full name of a module's type, as the table spells foreign ones."""
    cls = module if isinstance(module, type) else type(module)
    return f"{cls.__module__}.{cls.__qualname__}"


def is_one_of(module: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether a module's type, or one it derives from, is named."""
    return any(type_name(cls) in names for cls in type(module).__mro__)


def find_rule(layer: nn.Module, name: str) -> Rule:
    """Rule of a layer's exact type: a subclass may compute something else.

    Types of torch, timm and torchvision without a spatial kernel of their own, and containers of other modules, run
    frame by frame without a row in the table.
    """
    rule = KNOWN.get(type(layer)) or KNOWN.get(type_name(layer))
    if rule is not None:
        return rule
    own = [*layer._parameters.values(), *layer._buffers.values()]
    if type_name(layer).startswith(_LIBRARIES):
        kernels = [p for p in layer._parameters.values() if p is not None and p.ndim == 4]
        if not any(p.shape[-1] * p.shape[-2] > 1 for p in kernels):
            return frame_by_frame
    elif any(True for _ in layer.children()) and not own:
        return frame_by_frame
    raise TypeError(
        f"module {name!r} has type {type_name(layer)}, which has no rule; write "
        f"Inflate2dTo3d.register({type(layer).__name__}, rule), with nl3d.inflate.frame_by_frame if it is right on "
        "single frames, nl3d.inflate.time_first if it is a convolution, or a function that gives its twin on clips"
    )
