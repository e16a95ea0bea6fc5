"""Fill a network from tensors: all of it, and with nothing left over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nl3d.layers.appearance import FrameRegistration
from nl3d.layers.head import BNNeckHead, LinearHead, ReIDHead
from nl3d.layers.non_local import NonLocalBlock3d
from nl3d.unpickle import recognise

_LISTED = 6  # keys that one error names before it counts the rest


class _WithoutDraws(TorchFunctionMode):
    """Leaves out random numbers. Tensors of the meta device hold none, yet torch imports its compiler to draw them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            tensor = args[0] if args else (kwargs or {})["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Build what is built within on the meta device, in a moment: for :func:`fill_model` to fill."""
    with torch.device("meta"), _WithoutDraws():
        yield


def read_safetensors(path: Path, *, copy: bool = False) -> dict[str, Tensor]:
    """Map the tensors of a safetensors file into memory, to be read as they are used.

    The mapping is private: training on such tensors never changes the file. With ``copy``, the file is read at once,
    for files that another process may rewrite under the mapping; those in the Hub's cache never change.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights must name an existing file, got {str(path)!r}")
    try:
        if not copy:
            return load_file(path)
        if "backend" in signature(load_file).parameters:
            return load_file(path, backend="pread")
        return {key: tensor.clone() for key, tensor in load_file(path).items()}
    except SafetensorError as error:
        if kind := recognise(path):
            raise ValueError(f"weights must be a safetensors file, but {str(path)!r} is {kind}") from None
        fault = " ".join(str(error).split())
        raise ValueError(
            f"weights must be a whole safetensors file, got {str(path)!r} ({fault}); download or write it again"
        ) from None


def read_metadata(path: Path) -> dict[str, str]:
    """Strings in the header of a safetensors file; none if there is no such file, or it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def new_modules(model: nn.Module) -> tuple[str, ...]:
    """Name the modules that a backbone's checkpoint lacks: attention over time, registration, head, classifier."""
    heads = (ReIDHead, BNNeckHead, LinearHead)
    own = (NonLocalBlock3d, FrameRegistration, *heads)
    names = [name for name, module in model.named_modules() if isinstance(module, own)]
    names += [name for name, _ in model.named_children() if name == "aggregate"]
    return (*names, *(f"{name}.classifier" for name, module in model.named_modules() if isinstance(module, heads)))


def without_other_classifier(tensors: Mapping[str, Tensor], num_classes: int) -> Mapping[str, Tensor]:
    """Tensors of a network's own file, without its classifier if that has another number of classes."""
    classifier = tensors.get("head.classifier.weight")
    if classifier is None or len(classifier) == num_classes:
        return tensors
    return {key: tensor for key, tensor in tensors.items() if not key.startswith("head.classifier.")}


def fill_model(model: nn.Module, tensors: Mapping[str, Tensor], *, new: Collection[str] = ()) -> None:
    """Assign tensors to a network built under ``torch.device("meta")``, and initialise only what they leave new.

    The load is total: every key is used and every tensor of the model filled, but for whole modules that may be new.
    The tensors themselves become the parameters, without a copy, wherever dtype and memory layout allow: hand over
    clones of any that something else still uses. Floating-point tensors take the model's dtype, so a file in float16
    or bfloat16 loads as float32 unless the model was made otherwise. A norm's ``num_batches_tracked``, which old files
    lack, is filled with 0. ``model.new_tensors`` names what no tensor filled. Tensors on the meta device only show
    whether they fit, and leave the model there.

    Args:
        model: The network; on the meta device, or a real one whose tensors are replaced.
        tensors: Keys and tensors in the model's own names and shapes.
        new: Dotted names of the modules that may be new, such as :func:`new_modules` gives. Each is filled as a whole,
            or initialised as a whole by its ``reset_parameters()``.
    """
    wanted = model.state_dict(keep_vars=True)
    given = dict(tensors)
    for key, tensor in wanted.items():
        norm, _, last = key.rpartition(".")
        if last == "num_batches_tracked" and key not in given and f"{norm}.running_mean" in given:
            given[key] = torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    missing = [key for key in wanted if key not in given]
    fresh = _whole_modules(wanted, missing, new)
    new_tensors = tuple(key for key in missing if any(_inside(key, name) for name in fresh))
    _check_total(model, wanted, given, missing=[key for key in missing if key not in new_tensors])

    model.load_state_dict(_own(given, wanted), strict=False, assign=True)
    model.new_tensors = new_tensors  # type: ignore[assignment]
    if any(tensor.is_meta for tensor in tensors.values()):
        model.to("meta")  # tensors of shapes alone, to see whether they fit
        return
    for name in fresh:
        _initialise(model, name)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(f"model must hold all of its tensors in its state dict, but {type(model).__name__} does not")


def _inside(key: str, module: str) -> bool:
    return key.startswith(f"{module}.")


def _whole_modules(keys: Iterable[str], missing: Collection[str], allowed: Collection[str]) -> list[str]:
    """Allowed modules of which every tensor is missing, the outermost only."""
    lacking = set(missing)
    whole = [
        name
        for name in allowed
        if (own := [key for key in keys if _inside(key, name)]) and all(key in lacking for key in own)
    ]
    return [name for name in whole if not any(_inside(name, other) for other in whole)]


def _check_total(
    model: nn.Module, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], *, missing: Collection[str]
) -> None:
    faults = [
        _listed("missing", (f"{key} {tuple(wanted[key].shape)}" for key in missing)),
        _listed("not used", (f"{key} {tuple(given[key].shape)}" for key in sorted(given.keys() - wanted.keys()))),
        _listed("of another shape", _misfits(wanted, given, lambda tensor: tuple(tensor.shape))),
        _listed("of another kind", _misfits(wanted, given, lambda t: "float" if t.is_floating_point() else "integer")),
    ]
    if any(faults):
        raise ValueError(
            f"tensors must fill {type(model).__name__} wholly and be used wholly, got {'; '.join(filter(None, faults))}"
        )


def _misfits(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], aspect: Callable[[Tensor], object]
) -> Iterator[str]:
    for key, tensor in wanted.items():
        if key in given and aspect(given[key]) != aspect(tensor):
            yield f"{key} {aspect(given[key])} for {aspect(tensor)}"


def _listed(fault: str, entries: Iterable[str]) -> str:
    entries = list(entries)
    rest = f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return f"{fault}: {', '.join(entries[:_LISTED])}{rest}" if entries else ""


def _own(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors fit to be parameters: of the model's dtype, contiguous, and no two in the same memory."""
    owned: dict[str, Tensor] = {}
    taken: set[int] = set()
    for key, like in wanted.items():
        if key not in given:
            continue
        tensor = given[key].detach().to(like.dtype).contiguous()
        if tensor.numel() and tensor.data_ptr() in taken:
            tensor = tensor.clone()
        taken.add(tensor.data_ptr())
        owned[key] = tensor
    return owned


def _initialise(model: nn.Module, name: str) -> None:
    """Give a module that is still on the meta device memory, and the values it starts with alone."""
    module = model.get_submodule(name)
    if not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        return  # built on a real device: it has its first values already
    for inner in module.modules():
        for key, parameter in list(inner.named_parameters(recurse=False)):
            setattr(inner, key, nn.Parameter(_unset(parameter), requires_grad=parameter.requires_grad))
        for key, buffer in list(inner.named_buffers(recurse=False)):
            setattr(inner, key, _unset(buffer))
    parent = model.get_submodule(name.rpartition(".")[0])
    if name.endswith(".classifier") and isinstance(parent, (ReIDHead, BNNeckHead, LinearHead)):
        parent.reset_classifier_parameters()
    elif hasattr(module, "reset_parameters"):
        module.reset_parameters()  # type: ignore[operator]
    for inner in module.modules():
        if any(tensor.isnan().any() for tensor in (*inner.parameters(recurse=False), *inner.buffers(recurse=False))):
            inner.reset_parameters()  # type: ignore[operator]


def _unset(like: Tensor) -> Tensor:
    """Return memory without values: NaN shows what an initialisation forgets."""
    return torch.full(like.shape, torch.nan if like.is_floating_point() else 0, dtype=like.dtype, device="cpu")
