"""Base of the re-identification networks, with timm's method names."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from nl3d.data.clips.processor import ClipProcessor
from nl3d.layers.head import BNNeckHead, LinearHead, ReIDHead, ReIDOutput
from nl3d.layers.shapes import check_clips, check_finite


class ReIDNetwork(nn.Module):
    """Feature map of clips, then a head. Subclasses set ``head`` and ``in_channels`` and define ``forward_features``.

    Shape:
        - Input: RGB clips ``(B, in_channels, T, H, W)``, normalised by ``pretrained_cfg["mean"]`` and ``["std"]``
        - Output: :class:`~nl3d.ReIDOutput`
    """

    head: ReIDHead | BNNeckHead | LinearHead
    in_channels: int

    @property
    def processor(self) -> ClipProcessor:
        """Turns frames (RGB) into the clips that this network takes, as its ``pretrained_cfg`` says."""
        return ClipProcessor.of(self)

    @property
    def num_classes(self) -> int:
        """Number of identities of the classifier, 0 without one."""
        return self.head.num_classes

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding."""
        return self.head.embedding_dim

    def forward_features(self, clips: Tensor) -> Tensor:
        """Feature map ``(B, C, T', H', W')`` of clips ``(B, in_channels, T, H, W)``."""
        raise AssertionError("each network defines its features")

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> ReIDOutput | Tensor:
        """Pooled features, embedding and logits of a feature map; only the embedding with ``pre_logits``."""
        out = self.head(x)
        return out.embedding if pre_logits else out

    def forward(self, clips: Tensor) -> ReIDOutput:
        return cast(ReIDOutput, self.forward_head(self.forward_features(clips)))

    def embed(self, clips: Tensor) -> Tensor:
        """Embedding ``(B, embedding_dim)`` of clips ``(B, in_channels, T, H, W)``, by which tracklets are compared.

        Call ``eval()`` first: in training mode the batch norms would use this batch's statistics.

        Raises:
            TypeError: If clips are not floating point.
            ValueError: If clips have another rank, other channels or an empty axis, or hold NaN or infinite values.
        """
        check_clips(clips, self.in_channels, finite=False)
        check_finite(clips, name="clips")
        return self(clips).embedding

    def get_classifier(self) -> nn.Module:
        """Classifier, or :class:`torch.nn.Identity` without one."""
        return self.head.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh classifier over ``num_classes`` identities in place, or none for 0.

        Raises:
            ValueError: If ``num_classes`` is negative.
        """
        self.head.reset_classifier(num_classes)
