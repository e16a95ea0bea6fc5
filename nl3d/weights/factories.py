"""The networks, each a function whose body shows its architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nl3d.layers.shapes import check_choice
from nl3d.models.resnet3d import ResNet3d
from nl3d.weights.build import Weights, build_framewise, build_resnet3d

if TYPE_CHECKING:
    from nl3d.models.framewise import FramewiseNet


def resnet3d18(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> ResNet3d:
    """3D ResNet-18: two basic blocks per stage. Arguments and errors as of :func:`resnet3d50_nl`."""
    return build_resnet3d("resnet3d18", weights, num_classes, options, block="basic", block_counts=(2, 2, 2, 2))


def resnet3d18_nl(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> ResNet3d:
    """3D ResNet-18 with a non-local block after the second block of layer2 and of layer3, as :func:`resnet3d50_nl`.

    The paper has no such network; the places are its rule "every other residual block" on two blocks per stage.
    """
    return build_resnet3d(
        "resnet3d18_nl", weights, num_classes, options,
        block="basic", block_counts=(2, 2, 2, 2), non_local={"layer2": (1,), "layer3": (1,)},
    )  # fmt: skip


def resnet3d34(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> ResNet3d:
    """3D ResNet-34: the block counts of 50, of basic blocks. Arguments and errors as of :func:`resnet3d50_nl`."""
    return build_resnet3d("resnet3d34", weights, num_classes, options, block="basic", block_counts=(3, 4, 6, 3))


def resnet3d34_nl(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> ResNet3d:
    """3D ResNet-34 with non-local blocks at the places of :func:`resnet3d50_nl`; the paper has no such network."""
    return build_resnet3d(
        "resnet3d34_nl", weights, num_classes, options,
        block="basic", block_counts=(3, 4, 6, 3), non_local={"layer2": (1, 3), "layer3": (1, 3, 5)},
    )  # fmt: skip


def resnet3d50(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> ResNet3d:
    """3D ResNet-50, the paper's "3D" network (Table 2). Arguments and errors as of :func:`resnet3d50_nl`."""
    return build_resnet3d("resnet3d50", weights, num_classes, options, block="bottleneck", block_counts=(3, 4, 6, 3))


def resnet3d50_nl(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> ResNet3d:
    """3D ResNet-50 with five non-local blocks: the paper's best network.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3 and 4.2. The paper puts two blocks into res3 and three into res4;
    after which residual blocks is as in Wang et al. 2018, arXiv:1711.07971.

    A network with weights comes in evaluation mode, one without in training mode, here and through every other door.

    Args:
        weights: ``None`` for fresh weights, or a name of :func:`~nl3d.list_weights`, the path of a file or of a folder
            that ``save_pretrained`` wrote, or ``"hf-hub:org/name[@revision]"``. A file may be nl3d's own, an image
            ResNet's, which is inflated, or any other that :func:`~nl3d.from_checkpoint` reads; a 3D file keeps the
            layout it was trained in. What the file does not hold, non-local blocks, head or classifier as a whole, is
            fresh; ``model.new_tensors`` names it. A file's classifier is kept where it has ``num_classes`` classes.
        num_classes: Identities to classify, 0 for no classifier.
        options: Any other keyword of :class:`~nl3d.models.resnet3d.ResNet3d`. A saved network's own options stand
            where nothing is said here.

    Shape:
        - Input: RGB clips ``(B, 3, T, H, W)``, normalised by ``model.pretrained_cfg["mean"]`` and ``["std"]``
        - Output: :class:`~nl3d.ReIDOutput`

    Raises:
        ValueError: If the weights are unknown, damaged or of another network, or an option is out of range.
        TypeError: If an option does not exist.
        FileNotFoundError: If a file or repository does not exist.
        PermissionError: If a repository is not open to you.
        ConnectionError: If the Hub cannot be reached.

    Example:
        >>> model = nl3d.resnet3d50_nl(num_classes=625, base_width=8)  # the real one has base_width=64
        >>> model(torch.rand(2, 3, 4, 64, 32)).logits.shape
        torch.Size([2, 625])
    """
    return build_resnet3d(
        "resnet3d50_nl", weights, num_classes, options,
        block="bottleneck", block_counts=(3, 4, 6, 3), non_local={"layer2": (1, 3), "layer3": (1, 3, 5)},
    )  # fmt: skip


def resnet3d101(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> ResNet3d:
    """3D ResNet-101. Arguments and errors as of :func:`resnet3d50_nl`."""
    return build_resnet3d("resnet3d101", weights, num_classes, options, block="bottleneck", block_counts=(3, 4, 23, 3))


def resnet3d101_nl(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> ResNet3d:
    """3D ResNet-101 with five non-local blocks, as :func:`resnet3d50_nl`; the paper has no such network.

    Wang et al. spread the three blocks of res4 evenly over its 23 residual blocks, and so are they here.
    """
    return build_resnet3d(
        "resnet3d101_nl", weights, num_classes, options,
        block="bottleneck", block_counts=(3, 4, 23, 3), non_local={"layer2": (1, 3), "layer3": (6, 13, 20)},
    )  # fmt: skip


def resnet50_tp(
    weights: Weights = None,
    *,
    num_classes: int = 0,
    aggregation: Literal["mean", "max"] = "mean",
    **options: Any,
) -> FramewiseNet:
    """Image ResNet-50 on every frame, pooled over time (Fig. 1A); with ``"mean"`` the baseline of Table 2.

    Args:
        weights: ``None`` or the image network's: as of :func:`resnet3d50_nl`, without what is saved by nl3d.
        num_classes: Identities to classify, 0 for no classifier.
        aggregation: ``"mean"`` or ``"max"`` over the frames.
        options: Any other keyword of :class:`~nl3d.models.framewise.FramewiseNet`.
    """
    check_choice(aggregation, ("mean", "max"), name="aggregation")
    return build_framewise("resnet50_tp", weights, num_classes, options, backbone="resnet50", aggregation=aggregation)


def resnet50_rnn(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> FramewiseNet:
    """Image ResNet-50 on every frame, then an LSTM (Fig. 1B). Arguments as of :func:`resnet50_tp`."""
    return build_framewise("resnet50_rnn", weights, num_classes, options, backbone="resnet50", aggregation="rnn")


def resnet50_ta(weights: Weights = None, *, num_classes: int = 0, **options: Any) -> FramewiseNet:
    """Image ResNet-50 on every frame, then temporal attention (Fig. 1C). Arguments as of :func:`resnet50_tp`."""
    return build_framewise("resnet50_ta", weights, num_classes, options, backbone="resnet50", aggregation="attention")
