"""The 3D ResNet with non-local blocks (Sec. 3, Fig. 2 and 3a)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nl3d.data.clips.processor import IMAGENET_MEAN, IMAGENET_STD
from nl3d.hub.pretrained import PretrainedMixin
from nl3d.layers.head import BNNeckHead, LinearHead, ReIDHead
from nl3d.layers.non_local import NonLocalBlock3d
from nl3d.layers.separable import SeparableConv3d
from nl3d.layers.shapes import check_clips
from nl3d.layers.time_padding import time_padded_conv3d
from nl3d.models.blocks import BasicBlock3d, Bottleneck3d
from nl3d.models.options import KEYWORDS, STAGES, HeadOptions, ResNet3dOptions
from nl3d.models.reid_network import ReIDNetwork

FACTORIES: Mapping[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet3d18",
    ("basic", (3, 4, 6, 3)): "resnet3d34",
    ("bottleneck", (3, 4, 6, 3)): "resnet3d50",
    ("bottleneck", (3, 4, 23, 3)): "resnet3d101",
}
"""Kind of block and how many in each stage, to the name of the function that builds such a network."""

IMAGENET_CFG: Mapping[str, Any] = {
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "input_size": (3, 256, 128),
    "num_frames": 8,
    "frame_step": 1,
}
"""How clips are prepared where no checkpoint says it: RGB in [0, 1] as on ImageNet, 8 frames of 256x128 (Sec. 4.2)."""


class ResNet3d(ReIDNetwork, PretrainedMixin):
    """ResNet over clips: inflated stem, four stages of residual blocks with non-local blocks between, and a head.

    Stages and layers bear the names of the image ResNet, so that its ImageNet keys match; methods bear timm's names.
    Every option is plain data, so that a configuration file can hold it.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3, Fig. 2 and 3. The paper does not say whether time is strided
    (its cited 3D-ResNet does); no stride is the default here, since eight frames would leave one for the last stage.

    Args:
        options: The options in their parts, instead of keywords.
        keywords: The same, flat, as follows.
        block: ``"bottleneck"`` (50, 101 layers) or ``"basic"`` (18, 34).
        block_counts: Residual blocks in each of the four stages.
        layout: Where time is convolved: ``"separable"`` (the paper, Sec. 3.1), ``"i3d"``, ``"full"`` or a name of
            :func:`~nl3d.models.layouts.register_layout`; see :mod:`nl3d.models.layouts`.
        time_kernel: Frames that a temporal kernel spans, odd: one number for every block with a temporal kernel, or one
            for each block of each stage.
        stem_time_kernel: Frames that the stem's kernel spans; if left out, ``time_kernel`` (then one number), or 5 in
            ``"i3d"``.
        stem_stride: Stride of the stem's convolution, as an int or ``(t, h, w)``.
        stem_relu: Whether the stem has a ReLU after its norm.
        stem_pool_kernel: Kernel of the stem's max-pool, as an int or ``(t, h, w)``.
        stem_pool_stride: Its stride.
        stem_pool_padding: Its padding.
        stem_pool_ceil_mode: Whether its output size is rounded up.
        layer1_time_pool: Frames that a max-pool after layer1 reduces to one.
        time_strides: Stride in time of the first block of each stage.
        last_stride: Stride in space of the last stage; 1 keeps a map twice as fine.
        base_width: Channels of the stem; the stages have 1, 2, 4 and 8 times as many (and four times that, bottleneck).
        in_channels: Channels of the clips.
        time_padding: ``"zeros"``, or ``"replicate"`` for copies of the first and last frame.
        shortcut: ``"conv"`` (1x1x1 and norm) or ``"pad"`` (no parameters), where a block changes the shape.
        norm_eps: Epsilon of the batch norms of stem and stages.
        non_local: Stage to zero-based indices of the residual blocks after which a non-local block stands.
        non_local_mode: As ``mode`` of :class:`~nl3d.NonLocalBlock3d`.
        non_local_scale: As its ``scale``.
        non_local_subsample: As its ``subsample``, or by stage, as ``{"layer2": "before"}``.
        non_local_inner_channels: As its ``inner_channels``: one width for all blocks, or a stage's name to the width of
            its blocks, or half of each one's input.
        non_local_time_window: As its ``time_window``: one for all blocks, or a stage's name to that of its blocks.
        head: ``"bottleneck"`` (the paper's, :class:`~nl3d.ReIDHead`), ``"bnneck"`` or ``"linear"``.
        pool: ``"avg"``, ``"gem"`` or ``"frame_max"``: how the head pools.
        embedding_dim: Width of the bottleneck; other heads have none.
        num_classes: Identities to classify, 0 for no classifier.
        negative_slope: Slope of the bottleneck's leaky ReLU below zero.
        dropout: Dropout before the classifier, in training; the ``"bnneck"`` head has none.
        classifier_bias: Whether the ``"bnneck"`` head's classifier has a bias.
        projection_dim: Width of the ``"bnneck"`` head's linear map to the embedding; none if left out.

    Shape:
        - Input: RGB clips ``(B, in_channels, T, H, W)``, any T of at least ``min_frames`` (1 unless
          time is pooled), H and W
        - Output: :class:`~nl3d.ReIDOutput` of ``(B, num_features)``, ``(B, embedding_dim)`` and ``(B, num_classes)``
          or ``None``

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If an option is unknown or out of its range; in ``forward``, if clips are not ``(B, C, T, H, W)``.

    Example:
        >>> model = ResNet3d(block_counts=(1, 1, 1, 1), base_width=8, non_local={"layer2": (0,)}, num_classes=10).eval()
        >>> out = model(torch.rand(2, 3, 4, 64, 32))
        >>> out.features.shape, out.embedding.shape, out.logits.shape
        (torch.Size([2, 256]), torch.Size([2, 512]), torch.Size([2, 10]))
    """

    def __init__(self, options: ResNet3dOptions | None = None, **keywords: Any) -> None:
        super().__init__()
        if options is not None and keywords:
            raise TypeError(f"ResNet3d() takes options or keywords, got both, among them {next(iter(keywords))!r}")
        self.options = options = ResNet3dOptions.from_flat(**keywords) if options is None else options
        self.in_channels = options.in_channels
        self.grad_checkpointing = False
        self.pretrained_cfg: dict[str, Any] = dict(IMAGENET_CFG)

        stem, width = options.stem, options.base_width
        sizes: Any = stem.stride, stem.pool_kernel, stem.pool_stride, stem.pool_padding  # each (t, h, w) since checked
        strides, kernel, pool_strides, padding = sizes
        time_kernel = options.stem_time_kernel()
        self.conv1 = time_padded_conv3d(
            options.in_channels,
            width,
            (time_kernel, 7, 7),
            stride=strides,
            padding=(time_kernel // 2, 3, 3),
            time_padding=options.time_padding,
        )
        self.bn1 = nn.BatchNorm3d(width, eps=options.norm_eps)
        self.relu = nn.ReLU(inplace=True) if stem.relu else nn.Identity()
        self.maxpool = nn.MaxPool3d(kernel, pool_strides, padding, ceil_mode=stem.pool_ceil_mode)
        pooled = (options.layer1_time_pool - 1) * pool_strides[0] + kernel[0] - 2 * padding[0]
        self.min_frames = max((pooled - 1) * strides[0] + 1, 1)

        reduction = strides[1]
        self.feature_info = [{"num_chs": width, "reduction": reduction, "module": "relu"}]
        reduction *= pool_strides[1]
        channels = width
        self.stage_names: tuple[str, ...] = ()
        for index, name in enumerate(STAGES):
            space_stride = (1, 2, 2, options.last_stride)[index]
            stage = self._stage(index, channels, (options.time_strides[index], space_stride, space_stride))
            channels = stage[0].out_channels  # type: ignore[assignment]
            self._add_stage(name, stage)
            if index == 0 and options.layer1_time_pool > 1:
                self._add_stage("layer1_pool", nn.MaxPool3d((options.layer1_time_pool, 1, 1)))
            reduction *= space_stride
            self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": name})

        self.num_features = channels
        self.head = _build_head(channels, options.head)
        self.reset_parameters()

    def _stage(self, index: int, channels: int, stride: tuple[int, int, int]) -> nn.Sequential:
        """Residual blocks of a stage, each before its non-local block if it has one."""
        options, name, width = self.options, STAGES[index], self.options.base_width * 2**index
        kind = Bottleneck3d if options.block == "bottleneck" else BasicBlock3d
        places = (options.non_local.places or {}).get(name, ())
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, time_kernel in enumerate(options.time_kernels()[index]):
            layers[str(number)] = kind(
                channels,
                width,
                stride=(1, 1, 1) if number else stride,
                layout=options.layout,
                time_kernel=time_kernel,
                time_padding=options.time_padding,
                shortcut=options.shortcut,
                norm_eps=options.norm_eps,
            )
            channels = width * kind.expansion
            if number in places:
                layers[f"non_local{number}"] = NonLocalBlock3d(channels, **options.non_local.of_stage(name))
        return nn.Sequential(layers)

    def _add_stage(self, name: str, stage: nn.Module) -> None:
        self.add_module(name, stage)
        self.stage_names += (name,)

    @classmethod
    def option_names(cls) -> Collection[str]:
        return KEYWORDS.keys()

    def saved_options(self) -> dict[str, Any]:
        return self.options.flat()

    def reset_parameters(self) -> None:
        """He-initialise the convolutions (fan out, as ResNet does); blocks and head start as they start alone."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm3d):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, (SeparableConv3d, NonLocalBlock3d, ReIDHead, BNNeckHead, LinearHead)):
                module.reset_parameters()

    def forward_features(self, clips: Tensor) -> Tensor:
        """Feature map ``(B, num_features, T', H', W')`` of clips ``(B, in_channels, T, H, W)``.

        Raises:
            TypeError: If clips are not floating point.
            ValueError: If clips have another rank, other channels, an empty axis, fewer than ``min_frames`` frames or,
                on the CPU, values not finite.
        """
        check_clips(clips, self.in_channels)
        if clips.shape[2] < self.min_frames:
            raise ValueError(
                f"clips must have at least {self.min_frames} frames, for this network pools time, got {clips.shape[2]}"
            )
        x = self.maxpool(self.relu(self.bn1(self.conv1(clips))))
        for stage in map(self.get_submodule, self.stage_names):
            if self.grad_checkpointing and self.training and isinstance(stage, nn.Sequential):
                for block in stage:
                    x = checkpoint(block, x, use_reentrant=False)
            else:
                x = stage(x)
        return x

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def architecture(self) -> tuple[str, tuple[str, ...]]:
        """Name of the factory for these blocks, or ``"resnet3d"``, and the arguments that the name implies."""
        name = FACTORIES.get((self.options.block, tuple(self.options.block_counts)))
        if name is None:
            return "resnet3d", ()
        has_blocks = any((self.options.non_local.places or {}).values())
        return f"{name}_nl" if has_blocks else name, ("block", "block_counts")


def _build_head(channels: int, options: HeadOptions) -> ReIDHead | BNNeckHead | LinearHead:
    shared: Any = {"num_classes": options.num_classes, "pool": options.pool}
    if options.kind == "bnneck":
        return BNNeckHead(channels, options.projection_dim, classifier_bias=options.classifier_bias, **shared)
    if options.kind == "linear":
        return LinearHead(channels, dropout=options.dropout, **shared)
    return ReIDHead(
        channels, options.embedding_dim, negative_slope=options.negative_slope, dropout=options.dropout, **shared
    )
