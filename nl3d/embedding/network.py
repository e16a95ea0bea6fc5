"""A network put to use: which of its vectors, on which device, from uint8 clips."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nl3d.layers.precision import float32_on_small_maps

SEED = 0
"""Of networks that stand in where no weights are."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def choose_layer(model: nn.Module) -> Literal["features", "embedding"]:
    """Take the embedding where a checkpoint filled the layers that make it, else the pooled features.

    ``model.new_tensors`` names what no checkpoint filled; a network without it has seen none.
    """
    new = getattr(model, "new_tensors", None)
    if new is None or any(name.startswith("head.") and not name.startswith("head.classifier") for name in new):
        return "features"
    return "embedding"


def seeded(factory: Callable[[], nn.Module], seed: int = SEED) -> nn.Module:
    """Build a network without weights, the same in every run, leaving the caller's random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Turn ``"auto"`` into the best device there is.

    Raises:
        ValueError: If the device is unknown or not there.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be one that is there, such as 'cpu', got {str(device)!r}: {reason}") from error
    return picked


def device_of_rank(device: str | torch.device | None, local_rank: int) -> str | torch.device | None:
    """Give the processes of a machine a GPU each, where the device is ``"auto"`` or ``"cuda"`` without a number.

    With fewer GPUs than processes they share them; a process that sees a single GPU takes that.
    """
    if str(device) not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def fingerprint(model: nn.Module) -> str:
    """Hash the parameters and buffers, so that vectors of different networks are never compared."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class ClipRunner(AbstractContextManager["ClipRunner"]):
    """The network in evaluation mode on its device, from uint8 clips to vectors on the CPU."""

    def __init__(
        self,
        model: nn.Module,
        device: str | torch.device | None,
        amp: bool,
        layer: str,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        self.model = model
        parameter = next(model.parameters(), torch.empty(0))
        self.device = parameter.device if device is None else pick_device(device)
        self.dtype = parameter.dtype
        self.amp = amp
        self.layer = layer
        self.mean, self.std = tuple(mean or IMAGENET_MEAN), tuple(std or IMAGENET_STD)

    def __enter__(self) -> ClipRunner:
        self._training = [module for module in self.model.modules() if module.training]
        self.model.to(self.device).eval()
        # Scaling to [0, 1] and normalising are one multiplication and one addition.
        shape = (1, -1, 1, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(shape)
        self._scale = 1 / (255 * std)
        self._shift = -torch.tensor(self.mean, device=self.device).view(shape) / std
        return self

    def __exit__(self, *_: object) -> None:
        for module in self._training:
            module.training = True

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        # images: (B, T, 3, H, W) uint8
        clips = images.to(self.device, non_blocking=True).transpose(1, 2).contiguous()  # moved while they are bytes
        clips = clips.float().mul_(self._scale).add_(self._shift).to(self.dtype)  # (B, 3, T, H, W)
        with self._autocast(), float32_on_small_maps(clips):
            output: Any = self.model(clips)
        vectors = output if isinstance(output, Tensor) else getattr(output, self.layer)
        return vectors.double().cpu()  # (B, D), double so that averages do not depend on the batches

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.amp:
            return nullcontext()
        half = self.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast(self.device.type, torch.float16 if half else torch.bfloat16)
