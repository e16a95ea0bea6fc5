"""Clips and frames: a 2D network that takes clips, and 3D layers inside it that get their clips back.

A 2D network runs unchanged on the frames of all clips, folded into its batch axis. Only the layers that convolve time
need to know where a clip ends. Such a module changes its class to a subclass made at run time, with one of the
behaviours below as first base. Its name, parameters, attributes and other methods stay the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from nl3d.layers.precision import float32_on_small_maps
from nl3d.layers.shapes import check_clips


class ClipShape:
    """How the folded frames of the current batch divide into clips; a network and its time layers share one.

    The network writes it on entry. It stays after the call, because gradient checkpointing runs layers again later.
    """

    def __init__(self) -> None:
        self.num_clips: Any = 0
        self.lengths: tuple[Any, ...] = ()  # frames a clip may have: T, and what time strides make of it

    def unfold(self, frames: Tensor) -> Tensor:
        """(B*T, C, H, W) to (B, C, T, H, W)."""
        length = frames.shape[0] // self.num_clips if self.lengths else 0
        if length not in self.lengths or frames.shape[0] != self.num_clips * length:
            raise self._refusal(frames)
        return frames.unflatten(0, (self.num_clips, length)).transpose(1, 2)

    def fold(self, clips: Tensor) -> Tensor:
        """Undo :meth:`unfold`."""
        return clips.transpose(1, 2).flatten(0, 1)

    def unfold_inside(self, frames: Tensor) -> Tensor:
        """(B*T*n, C, H, W) to (B*n, C, T, H, W), for n maps that each frame has side by side, such as heads."""
        maps = frames.shape[0] // (self.num_clips * self.lengths[0]) if len(self.lengths) == 1 else 0
        if maps == 0 or frames.shape[0] != self.num_clips * self.lengths[0] * maps:
            raise self._refusal(frames)
        x = frames.unflatten(0, (self.num_clips, self.lengths[0], maps))  # (B, T, n, C, H, W)
        return x.permute(0, 2, 3, 1, 4, 5).flatten(0, 1)

    def fold_inside(self, clips: Tensor) -> Tensor:
        """Undo :meth:`unfold_inside`."""
        return clips.unflatten(0, (self.num_clips, -1)).permute(0, 3, 1, 2, 4, 5).flatten(0, 2)

    def _refusal(self, frames: Tensor) -> Exception:
        if not self.lengths:
            return RuntimeError("frames reached a time layer on its own; call the inflated network that it is part of")
        lengths = " or ".join(map(str, self.lengths))
        return ValueError(
            f"frames must be {self.num_clips} clips of {lengths} frames along the batch axis of a time layer, got "
            f"{tuple(frames.shape)}; keep layers whose batch is another one out of time with where="
        )


class Behaviour(nn.Module):
    """Mix-in for the class of a module. The class made of it is rebuilt from its recipe when pickled or copied."""

    prefix = ""
    recipe: tuple[type, ...] = ()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _blank, self.recipe, self.__dict__.copy()

    @classmethod
    def namespace(cls, base: type[nn.Module]) -> dict[str, Any]:
        """Methods made for one base class."""
        return {}


_made: dict[tuple[type, ...], type[nn.Module]] = {}


def behaving_class(*recipe: type) -> type[nn.Module]:
    """Return the cached subclass of ``recipe[0]`` with the given mix-ins, the last outermost."""
    if len(recipe) == 1:
        return recipe[0]
    if recipe not in _made:
        base, behaviour = behaving_class(*recipe[:-1]), recipe[-1]
        namespace = {"__module__": base.__module__, "__doc__": base.__doc__, "recipe": recipe}
        namespace |= behaviour.namespace(base)  # type: ignore[attr-defined]
        _made[recipe] = type(behaviour.prefix + base.__name__, (behaviour, base), namespace)  # type: ignore[attr-defined]
    return _made[recipe]


def behave(module: nn.Module, behaviour: type[Behaviour], **attributes: Any) -> None:
    """Add a behaviour to a module in place, with the attributes that it needs."""
    recipe = module.recipe if isinstance(module, Behaviour) else (type(module),)
    module.__class__ = behaving_class(*recipe, behaviour)
    for name, value in attributes.items():
        setattr(module, name, value)


def _blank(*recipe: type) -> nn.Module:
    made = behaving_class(*recipe)
    return made.__new__(made)


class OnFrames(Behaviour):
    """A 3D layer inside a 2D network: unfolds the frames to clips and folds its output. Clips pass as they are."""

    prefix = "Frame"
    clip_shape: ClipShape
    folds_inside = False  # whether frames have several maps each along the batch axis, such as heads

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 5:
            return super().forward(x)
        shape = self.clip_shape
        if self.folds_inside:
            return shape.fold_inside(super().forward(shape.unfold_inside(x)))
        x = super().forward(shape.unfold(x))
        if x.shape[2] not in shape.lengths:
            shape.lengths = (*shape.lengths, x.shape[2])
        return shape.fold(x)


class TimeFirst(Behaviour):
    """A 2D layer that stays as it is, after a temporal convolution of its input."""

    prefix = "TimeFirst"
    temporal: nn.Module

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().forward(self.temporal(x), *args, **kwargs)


class StridesTime(Behaviour):
    """Keep every ``time_stride``-th frame of a module's input, a map or a list of maps."""

    prefix = "TimeStrided"
    clip_shape: ClipShape
    time_stride: int

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        maps = [self._strided(frames) for frames in ([x] if isinstance(x, Tensor) else x)]
        return super().forward(maps[0] if isinstance(x, Tensor) else maps, *args, **kwargs)

    def _strided(self, frames: Tensor) -> Tensor:
        clips = frames.unflatten(0, (self.clip_shape.num_clips, -1))[:, :: self.time_stride]
        self.clip_shape.lengths = (*self.clip_shape.lengths, clips.shape[1])
        return clips.flatten(0, 1)


class DropsClips(Behaviour):
    """Stochastic depth that drops a residual branch for all frames of a clip or for none."""

    prefix = "Clip"
    clip_shape: ClipShape

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return super().forward(x.unflatten(0, (self.clip_shape.num_clips, -1))).flatten(0, 1)


class ThenClips(Behaviour):
    """A module whose output, a map, goes through one more 3D layer, such as a non-local block."""

    prefix = "NonLocal"
    non_local: nn.Module
    channels_last = False

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        x = super().forward(*args, **kwargs)
        if self.channels_last:
            return self.non_local(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.non_local(x)


class TakesClips(Behaviour):
    """A 2D network that takes clips and gives maps ``(B, C, T, H, W)``, tokens ``(B, T, L, C)``, vectors ``(B, D)``.

    A vector is the mean over the frames' vectors. Lists, tuples and dictionaries of these pass through.
    """

    prefix = "Inflated"
    clip_shape: ClipShape
    in_channels_of_clips: int | None = None

    @classmethod
    def namespace(cls, base: type[nn.Module]) -> dict[str, Any]:
        methods = ("forward", "forward_features", "forward_head", "forward_intermediates")
        return {name: _taking_clips(getattr(base, name)) for name in methods if hasattr(base, name)}


def _taking_clips(method: Callable[..., Any]) -> Callable[..., Any]:
    name = method.__name__

    @functools.wraps(method)
    def on_clips(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if name == "forward" or not isinstance(x, Tensor) or x.ndim == 5:
            given = self.in_channels_of_clips if name != "forward_head" else None
            check_clips(x, given or (x.shape[1] if isinstance(x, Tensor) and x.ndim > 1 else 3))
        else:
            return method(self, x, *args, **kwargs)  # the network's own call, with its frames already folded
        shape, num_clips = self.clip_shape, x.shape[0]
        shape.num_clips, shape.lengths = num_clips, (x.shape[2],)
        # a network that works in (N, H, W, C) gives and takes clips (B, C, T, H, W) all the same
        channels_last = str(getattr(self, "output_fmt", "")).endswith("NHWC")
        frames = x.transpose(1, 2).flatten(0, 1)
        if channels_last and name == "forward_head":
            frames = frames.permute(0, 2, 3, 1)
        with float32_on_small_maps(frames):
            output = method(self, frames, *args, **kwargs)
        if shape.num_clips != num_clips:
            raise RuntimeError(
                "an inflated network must run one batch at a time, but its clips changed during the call; "
                "give every thread its own copy"
            )
        if name == "forward_intermediates":  # timm gives these as (N, C, H, W), after the last map in its own layout
            last, maps = output if isinstance(output, tuple) else (None, output)
            maps = _to_clips(maps, num_clips, kwargs.get("output_fmt") == "NHWC")
            return maps if last is None else (_to_clips(last, num_clips, channels_last), maps)
        return _to_clips(output, num_clips, channels_last)

    return on_clips


def _to_clips(output: Any, num_clips: int, channels_last: bool) -> Any:
    if isinstance(output, Tensor):
        if output.ndim not in (2, 3, 4):
            return output
        x = output.unflatten(0, (num_clips, -1))  # (B, T, ...)
        if output.ndim == 2:
            return x.mean(1)
        if output.ndim == 3:
            return x
        return x.permute(0, 4, 1, 2, 3) if channels_last else x.transpose(1, 2)
    if isinstance(output, dict):
        return type(output)((key, _to_clips(value, num_clips, channels_last)) for key, value in output.items())
    if isinstance(output, (list, tuple)):
        values = [_to_clips(value, num_clips, channels_last) for value in output]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    return output
