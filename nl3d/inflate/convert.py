"""From an image network to a video network (Sec. 3.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from nl3d.inflate.clips import Behaviour, ClipShape, DropsClips, OnFrames, StridesTime, TakesClips, TimeFirst, behave
from nl3d.inflate.kernels import KernelInit
from nl3d.inflate.report import InflationReport, describe, report
from nl3d.inflate.rules import (
    ALONE,
    DROPS_SAMPLES,
    FOLDS_INSIDE,
    KNOWN,
    READS_SIZES,
    Rule,
    find_rule,
    frame_by_frame,
    is_one_of,
    time_first,
    type_name,
)
from nl3d.inflate.twins import OneFrameConv, TimeKernel, temporal_conv
from nl3d.layers.shapes import check_choice
from nl3d.layers.time_padding import TimePadding

Where: TypeAlias = Callable[[str, nn.Module], bool] | Mapping[str, int]


class Inflate2dTo3d:
    """Turn 2D layers and whole image networks into their 3D twins.

    A network runs its own forward code, unchanged, on the frames of all clips at once. The convolutions that see time
    become 3D kernels: they unfold the frames to clips, convolve, and fold the result. So on a still clip the video
    network gives the image network's answer on every frame with ``time_padding="replicate"``, and on interior frames
    with zeros.

    Each plane of a kernel starts as the 2D kernel divided by the number of planes. Convolutions with one plane are true
    5-D kernels too. Weight-standardised and conditional ones stay as they are, after a temporal convolution. Everything
    else, norms, pools, attention, runs frame by frame; batch norms, whose batch is all frames, see what a 3D one sees.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.1. The paper inflates by repeating and averaging a ResNet-50.

    Args:
        time_kernel: Frames that a kernel spans, odd.
        init: ``"average"``: every plane is 1/t of the 2D kernel. ``"center"``: the middle plane is the kernel and the
            others are zero, so that the video network starts as the image network on each frame, moving or not.
        separable: Make a kernel a :class:`~nl3d.SeparableConv3d` instead: temporal, then spatial.
        time_padding: ``"zeros"``, or ``"replicate"`` for copies of the first and last frame.
        time_stride: For a single layer, its stride in frames. For a network, the modules that keep every n-th frame of
            what enters them, as ``{"layer3": 2}``.
        where: The convolutions that see time. All with a spatial kernel above 1x1 if left out; a predicate
            ``(name, layer) -> bool``; or a table such as ``{"layer1": 3, "layer2.0": 5}`` from module name to
            time kernel, where the longest name counts and what is not named stays blind to time.
        share: Let the twin use the source's own tensors where time does not touch them, to save memory. Training one
            then trains the other. By default they are copies, bit for bit.

    Shape:
        - Input of a network: ``(B, C, T, H, W)``
        - Output: maps as ``(B, C, T', H', W')``, tokens as ``(B, T', L, C)``; vectors, such as logits, are averaged
          over frames to ``(B, D)``

    Raises:
        ValueError: If an option is out of its range, or ``where`` or ``time_stride`` name a module that is not there.
        TypeError: If what is called on is no module, is inflated already, or holds a type that has no rule.

    Example:
        >>> image_network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8))
        >>> video_network = Inflate2dTo3d(time_kernel=3)(image_network)
        >>> video_network(torch.zeros(2, 3, 4, 16, 8)).shape
        torch.Size([2, 8, 4, 16, 8])
        >>> video_network[0].weight.shape
        torch.Size([8, 3, 3, 3, 3])
    """

    def __init__(
        self,
        time_kernel: int = 3,
        *,
        init: KernelInit = "average",
        separable: bool = False,
        time_padding: TimePadding = "zeros",
        time_stride: int | Mapping[str, int] = 1,
        where: Where | None = None,
        share: bool = False,
    ) -> None:
        check_choice(init, ("average", "center"), name="init")
        check_choice(time_padding, ("zeros", "replicate"), name="time_padding")
        table = where if isinstance(where, Mapping) else {}
        for size in (time_kernel, *table.values()):
            if not isinstance(size, int) or size < 1 or size % 2 == 0:
                raise ValueError(f"time_kernel must be odd and positive, got {size!r}")
        for stride in time_stride.values() if isinstance(time_stride, Mapping) else (time_stride,):
            if not isinstance(stride, int) or stride < 1:
                raise ValueError(f"time_stride must be a positive number of frames, got {stride!r}")
        if where is not None and not callable(where) and not isinstance(where, Mapping):
            raise TypeError(f"where must be a predicate (name, layer) or a table of time kernels, got {where!r}")
        self.time_kernel = time_kernel
        self.init: KernelInit = init
        self.separable = separable
        self.time_padding: TimePadding = time_padding
        self.time_stride = time_stride
        self.where = where
        self.share = share

    def __call__(self, module: nn.Module) -> Any:
        """Return the 3D twin of a layer or network, which is not modified.

        Args:
            module: A 2D layer, such as a convolution, a batch norm or a pool, or a whole image network.
        """
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        if any(isinstance(part, Behaviour) for part in module.modules()):
            raise TypeError(f"module must be a 2D network, got {type(module).__name__}, which is inflated already")
        for name, part in module.named_modules():
            if isinstance(part, nn.Conv2d) and "weight" not in part._parameters:
                raise TypeError(
                    f"module {name!r} must own its weight, but computes it from {sorted(part._parameters)}; "
                    "remove the weight norm or parametrisation first"
                )
        twin = _copy(module)
        rule = ALONE.get(type(module)) or find_rule(module, "")
        if rule is not frame_by_frame and (alone := self._alone(twin, rule)) is not None:
            twin = alone
        else:
            self._inflate_network(twin)
        if not self.share:
            _own(twin, module)
        return twin

    @staticmethod
    def register(kind: type[nn.Module], rule: Rule) -> None:
        """Add a type to the table of rules, or replace its rule.

        Args:
            kind: The exact type; subclasses need their own rule.
            rule: :func:`~nl3d.inflate.frame_by_frame`, :func:`~nl3d.inflate.time_first`, or a function
                ``(layer, kernel: TimeKernel) -> module`` that gives the layer's twin on clips.

        Raises:
            TypeError: If ``kind`` is no module type or ``rule`` cannot be called.
        """
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"kind must be a type of torch.nn.Module, got {kind!r}")
        if not callable(rule):
            raise TypeError(f"rule must be a function (layer, kernel), got {rule!r}")
        KNOWN[kind] = rule

    @staticmethod
    def report(model: nn.Module) -> InflationReport:
        """List each layer before and after inflation, as rows and, printed, as a table."""
        return report(model)

    def _alone(self, layer: nn.Module, rule: Rule) -> nn.Module | None:
        if isinstance(self.time_stride, Mapping):
            raise ValueError(f"time_stride must be an int for a single layer, got {dict(self.time_stride)}")
        if isinstance(self.where, Mapping):
            raise ValueError(f"where must be left out for a single layer, got {dict(self.where)}")
        size = self._size("", layer)
        return rule(layer, self._kernel(size, self.time_stride))

    def _inflate_network(self, network: nn.Module) -> None:
        """Inflate in place: objects keep their identity, so that whoever refers to a layer finds its twin."""
        layers = [(name, layer) for name, layer in network.named_modules()]
        sized = tuple(f"{name}." for name, layer in layers if type_name(layer) in READS_SIZES)
        strides = self._strides(network)
        shape = ClipShape()
        replaced: tuple[str, ...] = ()
        for name, layer in layers:
            if replaced and name.startswith(replaced):
                continue  # part of a module whose rule replaced it whole
            rule = find_rule(layer, name)
            if rule is frame_by_frame:
                if is_one_of(layer, DROPS_SAMPLES):
                    behave(layer, DropsClips, clip_shape=shape)
            elif self._inflate_layer(layer, name, time_first if sized and name.startswith(sized) else rule, shape):
                replaced = (*replaced, f"{name}.")
        for name, layer in layers:
            if type_name(layer) in FOLDS_INSIDE:
                for part in layer.modules():
                    if isinstance(part, OnFrames):
                        part.folds_inside = True
            if name in strides:
                behave(layer, StridesTime, clip_shape=shape, time_stride=strides[name])
        behave(network, TakesClips, clip_shape=shape, in_channels_of_clips=_input_channels(network))

    def _inflate_layer(self, layer: nn.Module, name: str, rule: Rule, shape: ClipShape) -> bool:
        """Inflate one layer in place; whether its parts are gone."""
        kernel = self._kernel(self._size(name, layer), 1)
        was = describe(layer)
        twin = rule(layer, kernel)
        if twin is None:
            if kernel.size > 1:
                temporal = temporal_conv(layer, kernel)
                behave(temporal, OnFrames, clip_shape=shape)
                behave(layer, TimeFirst, temporal=temporal, inflated_from=was)
            return False
        blind = isinstance(twin, nn.Conv3d) and twin.kernel_size[0] == 1 and twin.stride[0] == 1
        hooks = {key: value for key, value in vars(layer).items() if key.endswith(("_hooks", "_hooks_with_kwargs"))}
        layer.__dict__ = {**vars(twin), **hooks}
        layer.__class__ = type(twin)
        if blind:
            behave(layer, OneFrameConv, inflated_from=was)
        else:
            behave(layer, OnFrames, clip_shape=shape, inflated_from=was)
        return True

    def _size(self, name: str, layer: Any) -> int:
        """Time kernel of a layer."""
        if isinstance(self.where, Mapping):
            names = [prefix for prefix in self.where if name == prefix or name.startswith(f"{prefix}.")]
            return self.where[max(names, key=len)] if names and _is_spatial(layer) else 1
        if callable(self.where):
            return self.time_kernel if self.where(name, layer) else 1
        return self.time_kernel if _is_spatial(layer) else 1

    def _kernel(self, size: int, stride: int) -> TimeKernel:
        return TimeKernel(size=size, init=self.init, separable=self.separable, padding=self.time_padding, stride=stride)

    def _strides(self, network: nn.Module) -> Mapping[str, int]:
        names = {name for name, _ in network.named_modules()}
        strides = self.time_stride if isinstance(self.time_stride, Mapping) else {}
        if isinstance(self.time_stride, int) and self.time_stride > 1:
            raise ValueError(
                f"time_stride must name modules of a network, as {{'layer3': {self.time_stride}}}, "
                f"got {self.time_stride}"
            )
        for argument, table in (("time_stride", strides), ("where", self.where)):
            unknown = sorted(set(table) - names) if isinstance(table, Mapping) else []
            if unknown:
                choices = ", ".join(name for name, _ in network.named_children())
                raise ValueError(f"{argument} must name modules of the network, got {unknown}; choose from: {choices}")
        return {name: stride for name, stride in strides.items() if stride > 1}


def _is_spatial(layer: Any) -> bool:
    """Whether a layer has a spatial kernel above 1x1; layers without a ``kernel_size`` count as spatial."""
    size = getattr(layer, "kernel_size", 0)
    return any(extent != 1 for extent in (size if isinstance(size, (tuple, list)) else (size,)))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _copy(module: nn.Module) -> nn.Module:
    """Copy the modules but not the tensors."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in _tensors(module)})


def _own(twin: nn.Module, source: nn.Module) -> None:
    """Copy the tensors that still share memory with the source, tied tensors once."""
    theirs = {tensor.untyped_storage().data_ptr() for tensor in _tensors(source)}
    copies: dict[int, Tensor] = {}
    for part in twin.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None or tensor.untyped_storage().data_ptr() not in theirs:
                    continue
                if id(tensor) not in copies:
                    new = tensor.detach().clone()
                    keep = isinstance(tensor, nn.Parameter)
                    copies[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad) if keep else new
                tensors[name] = copies[id(tensor)]  # type: ignore[assignment]


def _input_channels(network: nn.Module) -> int | None:
    """Channels of the clips, if timm's record and the first convolution agree on them."""
    size = (getattr(network, "pretrained_cfg", None) or {}).get("input_size")
    first = next((layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Conv3d))), None)
    return first.in_channels if first is not None and size and size[0] == first.in_channels else None
