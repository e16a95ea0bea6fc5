"""Image ResNet to 3D ResNet: the tensors of the one in the names and shapes of the other (Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from nl3d.inflate.kernels import inflate_kernel
from nl3d.layers.head import LinearHead


def inflate_state_dict(
    tensors_2d: Mapping[str, Tensor],
    model: nn.Module,
    *,
    init: Literal["average", "center"] = "average",
    keep_classifier: bool = False,
) -> dict[str, Tensor]:
    """Inflate the tensors of an image network, under its ImageNet names, into a 3D network's names and shapes.

    A convolution's kernel is spread over the planes of the model's own kernel at the same place. A module with a method
    ``inflate``, such as :class:`~nl3d.SeparableConv3d`, maps its own tensors. Norms and all other tensors stay the
    same. The classifier of the images, ``fc``, is dropped. Keys without a place in the model are kept, so that
    :func:`~nl3d.hub.fill.fill_model` refuses them. Kernels that need no spreading share memory with
    ``tensors_2d``.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3.1: each plane of the kernel is the image's, divided by t.

    Args:
        tensors_2d: State dict of the image network, in names such as ``layer1.0.conv2.weight``.
        model: The 3D network, which may be on the meta device: only its shapes are read.
        init: ``"average"``: every plane is 1/t of the image's kernel. ``"center"``: the middle plane is the image's and
            the others are zero.
        keep_classifier: Whether ``fc`` becomes the classifier of a ``"linear"`` head instead of being dropped.
    """
    if keep_classifier and not isinstance(getattr(model, "head", None), LinearHead):
        raise ValueError("keep_classifier needs a network with head='linear', whose classifier is on the same features")
    modules = dict(model.named_modules())
    inflated: dict[str, Tensor] = {}
    for key, tensor in tensors_2d.items():
        name, _, last = key.rpartition(".")
        module = modules.get(name)
        if name == "fc":
            if keep_classifier:
                inflated[f"head.classifier.{last}"] = tensor
        elif hasattr(module, "inflate") and (last != "weight" or tensor.ndim == 4):
            own = module.inflate(last, tensor, init=init)  # type: ignore[union-attr]
            inflated |= {f"{name}.{part}": value for part, value in own.items()}
        elif isinstance(module, nn.Conv3d) and last == "weight" and tensor.ndim == 4:
            inflated[key] = inflate_kernel(tensor, module.kernel_size[0], init=init)
        else:
            inflated[key] = tensor
    return inflated
