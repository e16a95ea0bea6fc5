"""From the last feature map to one vector per clip, and to the identities (Sec. 3, Fig. 3b)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from nl3d.layers.pooling import ClipPool, Pooling


class ReIDOutput(NamedTuple):
    """Output of every network of this package, in training and in evaluation alike.

    Attributes:
        features: ``(B, in_features)``, the pooled feature map: input of the triplet loss by default.
        embedding: ``(B, embedding_dim)``, the layer before the classifier: by which tracklets are compared.
        logits: ``(B, num_classes)``, or ``None`` without a classifier.
    """

    features: Tensor
    embedding: Tensor
    logits: Tensor | None


class _Head(nn.Module):
    """Base of the heads: a pool first, a classifier last, and no classifier at ``num_classes=0``."""

    classifier_bias = True

    def __init__(self, in_features: int, embedding_dim: int, *, num_classes: int, pool: Pooling) -> None:
        super().__init__()
        for name, value, minimum in (
            ("in_features", in_features, 1), ("embedding_dim", embedding_dim, 1), ("num_classes", num_classes, 0)
        ):  # fmt: skip
            if value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {value}")
        self.in_features = in_features
        self.embedding_dim = embedding_dim
        self.classified_dim = embedding_dim  # input of the classifier
        self.pool = ClipPool(pool)
        self.classifier: nn.Module = nn.Identity()
        self.num_classes = 0

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh classifier over ``num_classes`` identities in place, or none for 0."""
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0, got {num_classes}")
        self.num_classes = num_classes
        if num_classes == 0:
            self.classifier = nn.Identity()
            return
        like = next(self.parameters(), None)
        device, dtype = (like.device, like.dtype) if like is not None else (None, None)
        self.classifier = nn.Linear(
            self.classified_dim, num_classes, bias=self.classifier_bias, device=device, dtype=dtype
        )
        self.reset_classifier_parameters()

    def reset_classifier_parameters(self) -> None:
        """Draw the classifier small, N(0, 0.001), so that all identities start equally likely."""
        if isinstance(self.classifier, nn.Linear):
            nn.init.normal_(self.classifier.weight, std=0.001)
            if self.classifier.bias is not None:
                nn.init.zeros_(self.classifier.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, embedding_dim={self.embedding_dim}, num_classes={self.num_classes}"

    def classify(self, x: Tensor) -> Tensor | None:
        """Return the logits ``(B, num_classes)``, or ``None`` without a classifier."""
        return self.classifier(x) if self.num_classes else None


class ReIDHead(_Head):
    """Average pool, then the bottleneck (fully connected, batch norm, leaky ReLU, dropout), then the classifier.

    The embedding is taken before the dropout, so that a triplet loss on it compares clips and not dropout masks; in
    evaluation mode the two are the same.

    Source: Liao et al. 2018, arXiv:1807.05073, Sec. 3 and 4.2, Fig. 3(b). The paper gives no width and no
    initialisation; 512, He (fan out) and N(1, 0.02) for the norm's gain are those of the first author's image baseline.

    Args:
        in_features: Channels of the feature map.
        embedding_dim: Width of the bottleneck.
        num_classes: Identities to classify, 0 for no classifier.
        negative_slope: Slope of the leaky ReLU below zero.
        dropout: Share of the embedding that is dropped before the classifier, in training.
        pool: ``"avg"`` over T, H and W, ``"gem"`` (generalised mean), or ``"frame_max"`` (maximum in each frame,
            mean over the frames).

    Shape:
        - Input: ``(B, in_features, T, H, W)``, or ``(B, in_features)`` already pooled
        - Output: :class:`ReIDOutput` of ``(B, in_features)``, ``(B, embedding_dim)``, ``(B, num_classes)`` or ``None``

    Raises:
        ValueError: If a width is not positive, ``num_classes`` is negative, ``dropout`` is outside ``[0, 1)`` or the
            pool is unknown; in ``forward``, if the channels are not ``in_features``.

    Example:
        >>> head = ReIDHead(2048, num_classes=625)
        >>> [tuple(x.shape) for x in head(torch.zeros(2, 2048, 8, 8, 4))]
        [(2, 2048), (2, 512), (2, 625)]
    """

    def __init__(
        self,
        in_features: int,
        embedding_dim: int = 512,
        *,
        num_classes: int = 0,
        negative_slope: float = 0.1,
        dropout: float = 0.5,
        pool: Pooling = "avg",
    ) -> None:
        super().__init__(in_features, embedding_dim, num_classes=num_classes, pool=pool)
        self.fc = nn.Linear(in_features, embedding_dim)
        self.bn = nn.BatchNorm1d(embedding_dim)
        self.act = nn.LeakyReLU(negative_slope)
        self.dropout = nn.Dropout(_checked_dropout(dropout))
        self.reset_classifier(num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.fc.weight, mode="fan_out")
        nn.init.zeros_(self.fc.bias)
        self.bn.reset_running_stats()
        nn.init.normal_(self.bn.weight, mean=1.0, std=0.02)
        nn.init.zeros_(self.bn.bias)
        self.reset_classifier_parameters()

    def forward(self, x: Tensor) -> ReIDOutput:
        features = self.pool(_checked_map(x, self.in_features, self.bn))  # (B, in_features)
        embedding = self.act(self.bn(self.fc(features)))  # (B, embedding_dim)
        return ReIDOutput(features, embedding, self.classify(self.dropout(embedding)))


class BNNeckHead(_Head):
    """Pool, then a batch norm whose output is the embedding, then a classifier: the neck of most image re-id networks.

    Source: Luo et al. 2019, "Bag of Tricks", arXiv:1903.07071, Sec. 3.5; not of the paper.

    Args:
        in_features: Channels of the feature map.
        projection_dim: Width of a linear map, without bias, from the norm's output to the embedding; if left out, the
            norm's output is the embedding. The classifier sees the norm's output in either case.
        num_classes: Identities to classify, 0 for no classifier.
        pool: As for :class:`ReIDHead`.
        classifier_bias: Whether the classifier has a bias; the neck is usually used without.

    Shape:
        - Input: ``(B, in_features, T, H, W)``, or ``(B, in_features)`` already pooled
        - Output: :class:`ReIDOutput` of ``(B, in_features)``, ``(B, projection_dim or in_features)`` and
          ``(B, num_classes)`` or ``None``

    Example:
        >>> head = BNNeckHead(2048, 256, num_classes=751)
        >>> [tuple(x.shape) for x in head(torch.rand(2, 2048, 8, 8, 4))]
        [(2, 2048), (2, 256), (2, 751)]
    """

    def __init__(
        self,
        in_features: int,
        projection_dim: int | None = None,
        *,
        num_classes: int = 0,
        pool: Pooling = "avg",
        classifier_bias: bool = False,
    ) -> None:
        embedding_dim = in_features if projection_dim is None else projection_dim
        super().__init__(in_features, embedding_dim, num_classes=num_classes, pool=pool)
        self.classified_dim = in_features
        self.classifier_bias = classifier_bias
        self.bn = nn.BatchNorm1d(in_features)
        self.projection = None if projection_dim is None else nn.Linear(in_features, projection_dim, bias=False)
        self.reset_classifier(num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.bn.reset_parameters()
        if self.projection is not None:
            nn.init.kaiming_normal_(self.projection.weight, mode="fan_out")
        self.reset_classifier_parameters()

    def forward(self, x: Tensor) -> ReIDOutput:
        features = self.pool(_checked_map(x, self.in_features, self.bn))
        neck = self.bn(features)
        embedding = neck if self.projection is None else self.projection(neck)
        return ReIDOutput(features, embedding, self.classify(neck))


class LinearHead(_Head):
    """Pool, dropout, classifier: the head of action and image classifiers. The embedding is the pooled features.

    Args:
        in_features: Channels of the feature map, which are the embedding's too.
        num_classes: Classes, 0 for no classifier.
        dropout: Share of the features that is dropped before the classifier, in training.
        pool: As for :class:`ReIDHead`.

    Shape:
        - Input: ``(B, in_features, T, H, W)``, or ``(B, in_features)`` already pooled
        - Output: :class:`ReIDOutput` of ``(B, in_features)``, ``(B, in_features)`` and ``(B, num_classes)`` or ``None``
    """

    def __init__(self, in_features: int, *, num_classes: int = 0, dropout: float = 0.5, pool: Pooling = "avg") -> None:
        super().__init__(in_features, in_features, num_classes=num_classes, pool=pool)
        self.dropout = nn.Dropout(_checked_dropout(dropout))
        self.reset_classifier(num_classes)

    def reset_parameters(self) -> None:
        self.reset_classifier_parameters()

    def forward(self, x: Tensor) -> ReIDOutput:
        features = self.pool(_checked_map(x, self.in_features))
        return ReIDOutput(features, features, self.classify(self.dropout(features)))


def _checked_dropout(dropout: float) -> float:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    return dropout


def _checked_map(x: Tensor, in_features: int, norm: nn.Module | None = None) -> Tensor:
    if x.ndim not in (2, 5) or x.shape[1] != in_features:
        raise ValueError(f"x must be (B, C, T, H, W) or (B, C) with C={in_features}, got {tuple(x.shape)}")
    if isinstance(norm, nn.BatchNorm1d) and norm.training and x.shape[0] == 1:
        raise ValueError(
            "clips must be at least 2 in training mode, for the batch norm of the head, got 1; call eval() to embed, "
            "or leave out incomplete batches (drop_last=True) to train"
        )
    return x
