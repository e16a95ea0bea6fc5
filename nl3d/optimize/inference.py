"""Turn a network into one that computes the same in less time."""

from __future__ import annotations

import copy
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias, cast

import torch
from torch import Tensor, nn

from nl3d.inflate.clips import Behaviour, behave
from nl3d.layers.precision import float32_on_small_maps
from nl3d.layers.shapes import check_choice
from nl3d.models.fingerprint import fingerprint
from nl3d.optimize.blocks import fuse_blocks, fuse_embeddings
from nl3d.optimize.convolution import form_convolutions, forms_of, has_onednn, set_form
from nl3d.optimize.fold import fold_norms

Precision: TypeAlias = Literal["float32", "bfloat16", "auto"]

BFLOAT16_TOLERANCE = 0.05
"""Departure that bfloat16 is allowed if ``tolerance`` is smaller; its rounding alone is 0.004 per operation."""

ROUNDS = 3


@dataclass(frozen=True)
class Optimization:
    """What :func:`optimize_for_inference` did to a network.

    Attributes:
        folded_norms: Names of the batch norms that are folded into the layer before them.
        forms: Form of a convolution to the number of convolutions that have it.
        precision: ``"float32"`` or ``"bfloat16"``.
        compiled: Whether ``torch.compile`` runs the network.
        departure: Largest departure of an output on the sample: the norm of the difference over that of the original
            output, per clip.
        seconds_before: Time of the original on the sample, the median of three; ``None`` without a sample.
        seconds_after: The same of the optimised network.
    """

    folded_norms: tuple[str, ...]
    forms: dict[str, int]
    precision: str
    compiled: bool
    departure: float
    seconds_before: float | None = None
    seconds_after: float | None = None

    def __str__(self) -> str:
        forms = ", ".join(f"{count} {form}" for form, count in sorted(self.forms.items())) or "none"
        lines = [
            f"{len(self.folded_norms)} batch norms folded; convolutions: {forms}",
            f"precision {self.precision}{', compiled' if self.compiled else ''}; departure {self.departure:.1e}",
        ]
        if self.seconds_before is not None and self.seconds_after is not None:
            ratio = self.seconds_before / self.seconds_after
            lines.append(f"{self.seconds_before:.3f} s before, {self.seconds_after:.3f} s after: {ratio:.2f}x")
        return "\n".join(lines)


class OptimizedNetwork(Behaviour):
    """A network that :func:`optimize_for_inference` made: its class, for inference alone."""

    prefix = "Optimized"
    optimization: Optimization
    fingerprint: str
    autocast: torch.dtype | None = None

    def forward(self, clips: Tensor) -> Any:
        with torch.no_grad():
            if self.autocast is None:
                return super().forward(clips)
            with torch.autocast(clips.device.type, self.autocast), float32_on_small_maps(clips):
                return _map(super().forward(clips), Tensor.float)

    def train(self, mode: bool = True) -> Any:
        if mode:
            raise ValueError("mode must be False for an optimised network, which cannot train; train the original")
        return super().train(False)

    def save_pretrained(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: the folded tensors are not those of the architecture."""
        raise ValueError("an optimised network cannot be saved; save the original, and optimise it where it is loaded")

    def load_state_dict(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: the folded tensors are not those of the architecture."""
        raise ValueError("an optimised network cannot be loaded into; load into the original, then optimise that")


def optimize_for_inference(
    model: nn.Module,
    sample: Tensor | None = None,
    *,
    precision: Precision = "float32",
    compile: bool = False,
    tolerance: float = 1e-4,
) -> nn.Module:
    """Return a copy of a network that computes the same outputs in less time.

    Batch norms are folded into the layer before them, on CPUs ReLUs into the convolution, maps keep their channels last
    in memory, and a non-local block computes its embeddings by one convolution. With a ``sample``, the form of each
    convolution is the fastest of those measured on its device at the sample's size. Without, forms depend on the device
    alone, so that runs that share work get equal bits. Outputs are compared with those of the original in either case.

    The copy is of the same class, in evaluation mode. ``copy.optimization`` says what was done.

    Source: Jacob et al. 2018, arXiv:1712.05877, Sec. 3.2 (folding); Liao et al. 2018, arXiv:1807.05073, for the layers.

    Args:
        model: A network that takes clips ``(B, C, T, H, W)``. It is left as it is.
        sample: Clips to measure and to compare on, on the network's device. Left out, one clip of noise in the size
            that ``pretrained_cfg`` names, and nothing is measured.
        precision: ``"float32"``; ``"bfloat16"`` for convolutions and products, where the comparison allows it; or
            ``"auto"``, which is bfloat16 where the device computes it natively, the comparison allows it, and the
            sample, if there is one, takes less time.
        compile: Whether ``torch.compile`` with frozen weights takes over; the first calls are then slow.
        tolerance: Largest departure of an output from the original's, relative to its norm, per clip. Outputs in
            bfloat16 may depart by 0.05.

    Raises:
        ValueError: If the outputs depart by more, an option is unknown, or a network without ``pretrained_cfg`` comes
            without a sample.

    Example:
        >>> model = nl3d.resnet3d18(base_width=8).eval()
        >>> clips = torch.rand(2, 3, 4, 64, 32)
        >>> fast = nl3d.optimize_for_inference(model, clips)
        >>> torch.allclose(fast(clips).embedding, model(clips).embedding, atol=1e-4)
        True
    """
    check_choice(precision, ("float32", "bfloat16", "auto"), name="precision")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    measured = sample is not None
    clips = _noise(model) if sample is None else sample
    network = copy.deepcopy(model).eval().requires_grad_(False)
    wanted = _outputs(network, clips)
    before = _seconds(lambda: network(clips)) if measured else None

    folded = fold_norms(network, clips)
    fuse_embeddings(network)
    formed = form_convolutions(network)
    fuse_blocks(network)
    _choose_forms(network, formed, clips, measure=measured)
    behave(network, OptimizedNetwork, fingerprint=fingerprint(model))
    optimized = cast(OptimizedNetwork, network)
    if compile:
        network.compile(options={"freezing": True})

    departure = _departure(wanted, _outputs(network, clips))
    if not departure <= tolerance:
        raise ValueError(
            f"tolerance must allow what rounding does, got {tolerance:g}, but outputs depart by {departure:.2g} of "
            "their norm; raise it, or use the network as it is"
        )
    after = _seconds(lambda: network(clips)) if measured else None
    if precision == "bfloat16" or (precision == "auto" and _computes_bfloat16(clips.device)):
        reason, reduced, seconds = _try_bfloat16(optimized, clips, wanted, max(tolerance, BFLOAT16_TOLERANCE), after)
        if reason is None:
            departure, after = reduced, seconds
        elif precision == "bfloat16":
            raise ValueError(f"precision must be 'float32' for this network on this device: {reason}")
    optimized.optimization = Optimization(
        folded_norms=tuple(folded),
        forms=dict(Counter(layer.form for layer in formed)),
        precision="float32" if optimized.autocast is None else "bfloat16",
        compiled=compile,
        departure=departure,
        seconds_before=before,
        seconds_after=after,
    )
    return network


def _noise(model: nn.Module) -> Tensor:
    """One clip of the size that the network names, the same in every process."""
    config = getattr(model, "pretrained_cfg", None) or {}
    if "input_size" not in config:
        raise ValueError(f"sample must be given for {type(model).__name__}, whose pretrained_cfg names no input_size")
    channels, height, width = config["input_size"]
    parameter = next(model.parameters())
    shape = (1, getattr(model, "in_channels", channels), config.get("num_frames") or 8, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(parameter)


def _choose_forms(network: nn.Module, formed: Sequence[Any], clips: Tensor, *, measure: bool) -> None:
    """Set the form of each convolution: the first that its device has, or the fastest at its input's size."""
    if clips.dtype != torch.float32 or (clips.device.type == "cpu" and not has_onednn()):
        return
    inputs: dict[Any, Tensor] = {}

    def note(layer: Any, arguments: tuple[Any, ...]) -> None:
        inputs[layer] = torch.empty_like(arguments[0], device="meta")

    if measure:
        hooks = [layer.register_forward_pre_hook(note) for layer in formed]
        _outputs(network, clips)
        for hook in hooks:
            hook.remove()
    chosen: dict[Any, Any] = {}
    for layer in formed:
        forms = forms_of(layer, clips.device)
        set_form(layer, forms[0])
        if layer not in inputs or inputs[layer].ndim != len(layer.kernel_size) + 2:
            continue
        key = (tuple(inputs[layer].shape), tuple(layer.weight.shape), layer.stride, layer.padding, layer.dilation)
        if key not in chosen:
            chosen[key] = _fastest(layer, forms, inputs[layer], clips)
        set_form(layer, chosen[key])


def _fastest(layer: Any, forms: Sequence[Any], like: Tensor, clips: Tensor) -> Any:
    x = torch.randn(like.shape, dtype=clips.dtype, device=clips.device)

    def run(form: Any) -> Callable[[], Any]:
        layer.form = form
        return lambda: layer._conv_forward(x, layer.weight, layer.bias)

    set_form(layer, forms[0])
    x = x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)
    return min(forms, key=lambda form: _seconds(run(form)))


def _try_bfloat16(
    network: OptimizedNetwork, clips: Tensor, wanted: list[Tensor], tolerance: float, limit: float | None
) -> tuple[str | None, float, float | None]:
    """Switch a network to bfloat16 if that is right and, where time is measured, faster; else return the reason."""
    network.autocast = torch.bfloat16
    departure = _departure(wanted, _outputs(network, clips))
    seconds = None if limit is None else _seconds(lambda: network(clips))
    reason = None
    if not departure <= tolerance:
        reason = f"outputs in bfloat16 depart by {departure:.2g} of their norm, more than {tolerance:g}"
    elif limit is not None and seconds is not None and seconds > limit:
        reason = f"bfloat16 takes {seconds:.3f} s, float32 {limit:.3f} s"
    if reason is not None:
        network.autocast = None
    return reason, departure, seconds


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _outputs(network: nn.Module, clips: Tensor) -> list[Tensor]:
    """Tensors that a network gives for clips."""
    found: list[Tensor] = []
    with torch.no_grad():
        _map(network(clips), found.append)
    return found


def _map(output: Any, function: Callable[[Tensor], Any]) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, function, output)


def _departure(wanted: Sequence[Tensor], outputs: Sequence[Tensor]) -> float:
    """Largest norm of a difference over that of the wanted row; infinite where an output is not finite."""
    worst = 0.0
    for one, other in zip(wanted, outputs, strict=True):
        rows, others = one.flatten(1).double(), other.flatten(1).double()
        ratios = (rows - others).norm(dim=1) / rows.norm(dim=1).clamp(min=1e-30)
        worst = max(worst, float(ratios.nan_to_num(torch.inf).max()))
    return worst


def _seconds(call: Callable[[], Any]) -> float:
    """Median time of a call, after one that warms up."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        with torch.no_grad():
            call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
