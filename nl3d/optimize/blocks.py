"""Blocks of the 3D ResNets with their norms folded: fewer passes over the same maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nl3d.inflate.clips import Behaviour, behave
from nl3d.layers.non_local import NonLocalBlock3d
from nl3d.layers.precision import Conv3d
from nl3d.layers.separable import SeparableConv3d
from nl3d.models.blocks import BasicBlock3d, Bottleneck3d
from nl3d.models.resnet3d import ResNet3d
from nl3d.optimize.convolution import FormedConvolution


class FusedResidual(Behaviour):
    """A residual block whose convolutions hold their norms and, but for the last, their ReLU."""

    prefix = "Fused"

    def forward(self: Any, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv2(self.conv1(x))
        if isinstance(self, Bottleneck3d):
            x = self.conv3(x)
        return x.add_(shortcut).relu_()


class FusedEmbeddings(Behaviour):
    """A non-local block with one convolution for queries, keys and values, or for the last two if pooled before."""

    prefix = "Fused"
    embedding: nn.Module

    def _embed(self: Any, x: Tensor) -> tuple[Tensor, ...]:
        if self.subsample == "before":
            queries, rest = self.theta(x), self.embedding(self._pool(x))
        else:
            queries, rest = self.embedding(x).split([self.inner_channels, 2 * self.inner_channels], dim=1)
            rest = self._pool(rest) if self.subsample == "after" else rest
        return tuple(part.flatten(2).transpose(1, 2) for part in (queries, *rest.chunk(2, dim=1)))


def fuse_blocks(network: nn.Module) -> None:
    """Rewrite, in place, the blocks whose norms are folded and whose convolutions have forms."""
    for module in list(network.modules()):
        if isinstance(module, ResNet3d):
            _fuse_stem(module)
        elif isinstance(module, BasicBlock3d | Bottleneck3d):
            _fuse_residual(module)


def fuse_embeddings(network: nn.Module) -> None:
    """Let non-local blocks embed by one convolution, in place."""
    for module in list(network.modules()):
        if not isinstance(module, NonLocalBlock3d) or module.mode == "gaussian":
            continue
        names = ("phi", "g") if module.subsample == "before" else ("theta", "phi", "g")
        parts = [module.get_submodule(name) for name in names]
        with torch.device("meta"):
            embedding = Conv3d(module.in_channels, len(parts) * module.inner_channels, 1)
        embedding.weight, embedding.bias = (
            nn.Parameter(torch.cat([part.get_parameter(name).detach() for part in parts]))
            for name in ("weight", "bias")
        )
        behave(module, FusedEmbeddings, embedding=embedding.eval())
        for name in names:
            delattr(module, name)


def _fuse_residual(block: Any) -> None:
    norms = [block.bn1, block.bn2, *([block.bn3] if isinstance(block, Bottleneck3d) else [])]
    last = [_last(block.conv1), _last(block.conv2)]
    if not all(isinstance(norm, nn.Identity) for norm in norms) or not all(last):
        return
    for layer in last if isinstance(block, Bottleneck3d) else last[:1]:
        layer.relu = True  # type: ignore[union-attr]
    behave(block, FusedResidual)


def _fuse_stem(network: ResNet3d) -> None:
    stem = _last(network.conv1)
    if stem is not None and isinstance(network.bn1, nn.Identity) and isinstance(network.relu, nn.ReLU):
        stem.relu = True
        network.relu = nn.Identity()


def _last(module: nn.Module) -> FormedConvolution | None:
    """Return the convolution whose output is the module's, if it can apply a ReLU."""
    module = module.spatial if isinstance(module, SeparableConv3d) else module
    return module if isinstance(module, FormedConvolution) else None
