"""Best match of open tracks in a gallery."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nl3d.embedding.embeddings import Embeddings, require_same_maker
from nl3d.live.tracks import Match
from nl3d.metrics.distance import Metric
from nl3d.retrieval.search.nearest import nearest


class GalleryMatcher:
    """Finds the nearest tracklet of a gallery, exactly.

    Args:
        gallery: Embeddings, or a file of them, which is read into memory.
        metric: How distances are measured.
        metadata: Metadata of the vectors that will be asked for.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the gallery is empty, or was made by another network.
    """

    def __init__(self, gallery: Embeddings | str | Path, metric: Metric, metadata: Mapping[str, str]) -> None:
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric must be one of 'euclidean', 'cosine', got {metric!r}")
        self.gallery = gallery if isinstance(gallery, Embeddings) else Embeddings.load(gallery)
        self.metric: Metric = metric
        if not len(self.gallery):
            raise ValueError("gallery must hold at least one tracklet, got none")
        require_same_maker(metadata, self.gallery.metadata)

    def __call__(self, vectors: Tensor) -> list[Match]:
        """Return the match of each vector.

        Shape:
            - vectors: ``(N, D)``

        Raises:
            ValueError: If the gallery's vectors have another width.
        """
        if vectors.shape[1] != self.gallery.shape[1]:
            raise ValueError(
                f"gallery must hold vectors of the network's width, {vectors.shape[1]}, got {self.gallery.shape[1]}"
            )
        distances, rows = nearest(vectors, self.gallery, 1, metric=self.metric)
        people = self.gallery.people
        return [
            Match(self.gallery.names[row], None if people is None else people[row], distance)
            for row, distance in zip(rows[:, 0].tolist(), distances[:, 0].tolist(), strict=True)
        ]
