"""Fold batch norms into the convolution or linear layer before them."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from nl3d.inflate.clips import Behaviour
from nl3d.layers.precision import Conv3d
from nl3d.layers.time_padding import TimePaddedConv3d

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv3d, TimePaddedConv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d)


def layer_type(module: nn.Module) -> type[nn.Module]:
    """Return a module's class without the behaviours that inflation put before it."""
    return module.recipe[0] if isinstance(module, Behaviour) else type(module)


def fold_norms(network: nn.Module, sample: Tensor) -> list[str]:
    """Fold, in place, each batch norm whose input is the output of one convolution or linear layer.

    Which layer feeds which norm is observed while ``sample`` passes, so it holds for any network. Layers that are
    called more than once, and layers of other classes (such as those that standardise their weights), stay as they are.

    Source: Jacob et al. 2018, arXiv:1712.05877, Sec. 3.2.

    Args:
        network: A network in evaluation mode.
        sample: Clips that it takes.

    Returns:
        The names of the norms that were folded.
    """
    names = {module: name for name, module in network.named_modules()}
    pairs = _observe_pairs(network, sample)
    for norm, layer in pairs.items():
        _fold(layer, norm)
        parent, _, child = names[norm].rpartition(".")
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        setattr(network.get_submodule(parent), child, rest.eval())
    return sorted(names[norm] for norm in pairs)


def _observe_pairs(network: nn.Module, sample: Tensor) -> dict[Any, Any]:
    """Return the layer before each norm that can be folded."""
    layers = [module for module in network.modules() if layer_type(module) in (*CONVOLUTIONS, nn.Linear)]
    norms = [
        module
        for module in network.modules()
        if layer_type(module) in NORMS and not module.training and module.running_mean is not None
    ]
    calls: Counter[nn.Module] = Counter()
    outputs: dict[int, tuple[weakref.ref[Tensor], nn.Module]] = {}
    pairs: dict[Any, Any] = {}

    def after_layer(module: nn.Module, _: Any, output: Any) -> None:
        calls[module] += 1
        outputs[id(output)] = weakref.ref(output), module  # a weak reference, since the maps together are large

    def before_norm(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[module] += 1
        reference, layer = outputs.get(id(inputs[0]), (None, None))
        if reference is not None and reference() is inputs[0]:
            pairs[module] = layer

    hooks = [layer.register_forward_hook(after_layer) for layer in layers]
    hooks += [norm.register_forward_pre_hook(before_norm) for norm in norms]
    try:
        with torch.no_grad():
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    shared = Counter(pairs.values())
    return {
        norm: layer
        for norm, layer in pairs.items()
        if calls[norm] == calls[layer] == shared[layer] == 1 and not isinstance(norm, Behaviour)
    }


def _fold(layer: Any, norm: Any) -> None:
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    layer.weight, layer.bias = fuse(layer.weight, layer.bias, *statistics)
