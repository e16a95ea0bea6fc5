"""The 3D ResNet with non-local blocks (Sec. 3, Fig. 2 and 3a)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nl3d.hub.pretrained import PretrainedMixin
from nl3d.layers.head import BNNeckHead, LinearHead, ReIDHead
from nl3d.layers.non_local import NonLocalBlock3d, NonLocalMode, Subsample
from nl3d.layers.pooling import Pooling
from nl3d.layers.separable import SeparableConv3d
from nl3d.layers.shapes import Size3, check_choice, check_clips, to_3tuple
from nl3d.layers.time_padding import TimePadding, time_padded_conv3d
from nl3d.models.blocks import BasicBlock3d, Bottleneck3d, Layout, Shortcut
from nl3d.models.reid_network import ReIDNetwork

STAGES = ("layer1", "layer2", "layer3", "layer4")

FACTORIES: Mapping[tuple[str, tuple[int, ...]], str] = {
    ("BasicBlock3d", (2, 2, 2, 2)): "resnet3d18",
    ("BasicBlock3d", (3, 4, 6, 3)): "resnet3d34",
    ("Bottleneck3d", (3, 4, 6, 3)): "resnet3d50",
    ("Bottleneck3d", (3, 4, 23, 3)): "resnet3d101",
}
"""Kind of block and how many in each stage, to the name of the function that builds such a network."""

IMAGENET_CFG: Mapping[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "input_size": (3, 256, 128),
    "num_frames": 8,
    "frame_step": 1,
}
"""How clips are prepared where no checkpoint says it: RGB in [0, 1] as on ImageNet, 8 frames of 256x128 (Sec. 4.2)."""


class ResNet3d(ReIDNetwork, PretrainedMixin):
    """ResNet over clips: inflated stem, four stages of residual blocks with non-local blocks between, and a head.

    Stages and layers bear the names of the image ResNet, so that its ImageNet keys match; methods bear timm's names.
    Every argument is plain data, so that a configuration file can hold it.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3, Fig. 2 and 3. The paper does not say whether time is strided
    (its cited 3D-ResNet does); no stride is the default here, since eight frames would leave one for the last stage.

    Args:
        block: ``"bottleneck"`` (50, 101 layers) or ``"basic"`` (18, 34).
        block_counts: Residual blocks in each of the four stages.
        layout: Where time is convolved. ``"separable"`` (the paper, Sec. 3.1): each 3x3 of a residual block becomes a
            :class:`~nl3d.SeparableConv3d`. ``"i3d"``: the bottleneck's first 1x1 becomes t x 1 x 1, or the basic
            block's first 3x3 t x 3 x 3, in every other block: all of layer1, even ones of layer2 and layer3, odd ones
            of layer4, as in Wang et al. ``"full"``: each 3x3 becomes t x 3 x 3.
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
        non_local_subsample: As its ``subsample``.
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
        - Input: ``(B, in_channels, T, H, W)``, any T of at least ``min_frames`` (1 unless time is pooled), H and W
        - Output: :class:`~nl3d.ReIDOutput` of ``(B, num_features)``, ``(B, embedding_dim)`` and ``(B, num_classes)``
          or ``None``

    Raises:
        ValueError: If an option is unknown or out of its range; in ``forward``, if clips are not ``(B, C, T, H, W)``.

    Example:
        >>> model = ResNet3d(block_counts=(1, 1, 1, 1), base_width=8, non_local={"layer2": (0,)}, num_classes=10).eval()
        >>> out = model(torch.rand(2, 3, 4, 64, 32))
        >>> out.features.shape, out.embedding.shape, out.logits.shape
        (torch.Size([2, 256]), torch.Size([2, 512]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        *,
        block: Literal["bottleneck", "basic"] = "bottleneck",
        block_counts: Sequence[int] = (3, 4, 6, 3),
        layout: Layout = "separable",
        time_kernel: int | Sequence[Sequence[int]] = 3,
        stem_time_kernel: int | None = None,
        stem_stride: Size3 = (1, 2, 2),
        stem_relu: bool = True,
        stem_pool_kernel: Size3 = (1, 3, 3),
        stem_pool_stride: Size3 = (1, 2, 2),
        stem_pool_padding: Size3 = (0, 1, 1),
        stem_pool_ceil_mode: bool = False,
        layer1_time_pool: int = 1,
        time_strides: Sequence[int] = (1, 1, 1, 1),
        last_stride: int = 2,
        base_width: int = 64,
        in_channels: int = 3,
        time_padding: TimePadding = "zeros",
        shortcut: Shortcut = "conv",
        norm_eps: float = 1e-5,
        non_local: Mapping[str, Sequence[int]] | None = None,
        non_local_mode: NonLocalMode = "embedded_gaussian",
        non_local_scale: bool = False,
        non_local_subsample: Subsample | None = None,
        non_local_inner_channels: int | Mapping[str, int] | None = None,
        non_local_time_window: int | Mapping[str, int] | None = None,
        head: Literal["bottleneck", "bnneck", "linear"] = "bottleneck",
        pool: Pooling = "avg",
        embedding_dim: int = 512,
        num_classes: int = 0,
        negative_slope: float = 0.1,
        dropout: float = 0.5,
        classifier_bias: bool = False,
        projection_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_choice(block, ("bottleneck", "basic"), name="block")
        check_choice(layout, ("separable", "i3d", "full"), name="layout")
        check_choice(shortcut, ("conv", "pad"), name="shortcut")
        check_choice(head, ("bottleneck", "bnneck", "linear"), name="head")
        _check_four(block_counts, name="block_counts")
        _check_four(time_strides, name="time_strides")
        for name, size in (
            ("base_width", base_width), ("in_channels", in_channels), ("last_stride", last_stride),
            ("layer1_time_pool", layer1_time_pool),
        ):  # fmt: skip
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        time_kernels = block_time_kernels(time_kernel, layout, block_counts)
        stem_kernel = _stem_kernel(stem_time_kernel, time_kernel, layout)
        places = _checked_places(non_local or {}, block_counts)
        for name, by_stage in (
            ("non_local_inner_channels", non_local_inner_channels),
            ("non_local_time_window", non_local_time_window),
        ):
            for stage in by_stage if isinstance(by_stage, Mapping) else ():
                check_choice(stage, STAGES, name=f"{name}'s stage")

        self.in_channels = in_channels
        self.grad_checkpointing = False
        self.pretrained_cfg: dict[str, Any] = dict(IMAGENET_CFG)

        stem_strides = to_3tuple(stem_stride, name="stem_stride")
        self.conv1 = time_padded_conv3d(
            in_channels,
            base_width,
            (stem_kernel, 7, 7),
            stride=stem_strides,
            padding=(stem_kernel // 2, 3, 3),
            time_padding=time_padding,
        )
        self.bn1 = nn.BatchNorm3d(base_width, eps=norm_eps)
        self.relu = nn.ReLU(inplace=True) if stem_relu else nn.Identity()
        pool_kernel = to_3tuple(stem_pool_kernel, name="stem_pool_kernel")
        pool_strides = to_3tuple(stem_pool_stride, name="stem_pool_stride")
        pool_padding = to_3tuple(stem_pool_padding, name="stem_pool_padding", minimum=0)
        self.maxpool = nn.MaxPool3d(pool_kernel, pool_strides, pool_padding, ceil_mode=stem_pool_ceil_mode)
        pooled = (layer1_time_pool - 1) * pool_strides[0] + pool_kernel[0] - 2 * pool_padding[0]
        self.min_frames = max((pooled - 1) * stem_strides[0] + 1, 1)

        reduction = stem_strides[1]
        self.feature_info = [{"num_chs": base_width, "reduction": reduction, "module": "relu"}]
        reduction *= pool_strides[1]
        channels = base_width
        kind = Bottleneck3d if block == "bottleneck" else BasicBlock3d
        for index, stage in enumerate(STAGES):
            space_stride = (1, 2, 2, last_stride)[index]
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for number in range(block_counts[index]):
                first = number == 0
                layers[str(number)] = kind(
                    channels,
                    base_width * 2**index,
                    stride=(time_strides[index], space_stride, space_stride) if first else (1, 1, 1),
                    layout=layout,
                    time_kernel=time_kernels[index][number],
                    time_padding=time_padding,
                    shortcut=shortcut,
                    norm_eps=norm_eps,
                )
                channels = base_width * 2**index * kind.expansion
                if number in places[stage]:
                    layers[f"non_local{number}"] = NonLocalBlock3d(
                        channels,
                        _of_stage(non_local_inner_channels, stage),
                        mode=non_local_mode,
                        scale=non_local_scale,
                        subsample=non_local_subsample,
                        time_window=_of_stage(non_local_time_window, stage),
                    )
            self.add_module(stage, nn.Sequential(layers))
            if index == 0 and layer1_time_pool > 1:
                self.layer1_pool = nn.MaxPool3d((layer1_time_pool, 1, 1))
            reduction *= space_stride
            self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": stage})

        self.num_features = channels
        if head == "bottleneck":
            self.head = ReIDHead(
                channels,
                embedding_dim,
                num_classes=num_classes,
                negative_slope=negative_slope,
                dropout=dropout,
                pool=pool,
            )
        elif head == "bnneck":
            self.head = BNNeckHead(
                channels, projection_dim, num_classes=num_classes, pool=pool, classifier_bias=classifier_bias
            )
        else:
            self.head = LinearHead(channels, num_classes=num_classes, dropout=dropout, pool=pool)
        self.reset_parameters()

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
        for name, stage in self.named_children():
            if not name.startswith("layer"):
                continue
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
        counts = tuple(
            sum(name.isdigit() for name, _ in self.get_submodule(stage).named_children()) for stage in STAGES
        )
        name = FACTORIES.get((type(self.get_submodule("layer1.0")).__name__, counts))
        if name is None:
            return "resnet3d", ()
        has_non_local = any(isinstance(module, NonLocalBlock3d) for module in self.modules())
        return (f"{name}_nl" if has_non_local else name), ("block", "block_counts")


def _of_stage(value: int | Mapping[str, int] | None, stage: str) -> int | None:
    return value.get(stage) if isinstance(value, Mapping) else value


def _check_four(values: Sequence[int], *, name: str) -> None:
    if len(values) != len(STAGES) or any(value < 1 for value in values):
        raise ValueError(f"{name} must be four numbers of at least 1, one a stage, got {tuple(values)!r}")


def block_time_kernels(
    time_kernel: int | Sequence[Sequence[int]], layout: Layout, block_counts: Sequence[int]
) -> list[list[int]]:
    """Temporal kernel of each block of each stage."""
    if isinstance(time_kernel, int):
        every_other = ((0, 1), (0,), (0,), (1,)) if layout == "i3d" else ((0, 1),) * 4
        kernels = [
            [time_kernel if number % 2 in every_other[index] else 1 for number in range(count)]
            for index, count in enumerate(block_counts)
        ]
    else:
        kernels = [list(stage) for stage in time_kernel]
        if [len(stage) for stage in kernels] != list(block_counts):
            raise ValueError(
                f"time_kernel must name one kernel for each of {tuple(block_counts)} blocks, got {kernels}"
            )
    if any(kernel < 1 or kernel % 2 == 0 for stage in kernels for kernel in stage):
        raise ValueError(f"time_kernel must be odd and at least 1, got {time_kernel!r}")
    return kernels


def _stem_kernel(stem_time_kernel: int | None, time_kernel: int | Sequence[Sequence[int]], layout: Layout) -> int:
    if stem_time_kernel is None:
        if not isinstance(time_kernel, int):
            raise ValueError("stem_time_kernel must be given where time_kernel is given block by block, got None")
        stem_time_kernel = 5 if layout == "i3d" and time_kernel > 1 else time_kernel
    if stem_time_kernel < 1 or stem_time_kernel % 2 == 0:
        raise ValueError(f"stem_time_kernel must be odd and at least 1, got {stem_time_kernel}")
    return stem_time_kernel


def _checked_places(non_local: Mapping[str, Sequence[int]], block_counts: Sequence[int]) -> dict[str, Sequence[int]]:
    for stage, numbers in non_local.items():
        check_choice(stage, STAGES, name="non_local's stage")
        count = block_counts[STAGES.index(stage)]
        if any(not 0 <= number < count for number in numbers):
            raise ValueError(f"non_local must name blocks 0 to {count - 1} of {stage}, got {tuple(numbers)!r}")
    return {stage: non_local.get(stage, ()) for stage in STAGES}
