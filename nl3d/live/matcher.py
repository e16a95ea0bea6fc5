"""Best match of open tracks in a gallery."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nl3d.embedding.embeddings import Embeddings, require_same_maker
from nl3d.embedding.vector_files import READERS
from nl3d.gallery.gallery import Gallery
from nl3d.live.tracks import Match
from nl3d.metrics.distance import Metric
from nl3d.retrieval.calibration import Calibration
from nl3d.retrieval.search.nearest import nearest


class GalleryMatcher:
    """Finds the nearest tracklet of a gallery, exactly.

    Args:
        gallery: A :class:`nl3d.Gallery`, which may change meanwhile and may be empty; or embeddings; or a file of
            either, told by its suffix.
        metric: How distances are measured.
        metadata: Metadata of the vectors that will be asked for.
        calibration: As for :func:`nl3d.rank`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If embeddings are empty, or the gallery or the calibration is of another network.
    """

    def __init__(
        self,
        gallery: Gallery | Embeddings | str | Path,
        metric: Metric,
        metadata: Mapping[str, str],
        calibration: Calibration | str | Path | None = None,
    ) -> None:
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric must be one of 'euclidean', 'cosine', got {metric!r}")
        if isinstance(gallery, str | Path):
            is_embeddings = Path(gallery).suffix.lower() in READERS
            gallery = Embeddings.load(gallery) if is_embeddings else Gallery(gallery)
        self.gallery, self.metric = gallery, metric
        if isinstance(gallery, Embeddings) and not len(gallery):
            raise ValueError("gallery must hold at least one tracklet, got none")
        require_same_maker(metadata, gallery.metadata)
        self.calibration = Calibration.choose(calibration, metadata, metric)

    def __call__(self, vectors: Tensor) -> list[Match | None]:
        """Return the match of each vector; None while the gallery is empty.

        Shape:
            - vectors: ``(N, D)``

        Raises:
            ValueError: If the gallery's vectors have another width.
        """
        if isinstance(self.gallery, Gallery):
            return self._ask(self.gallery, vectors)
        if vectors.shape[1] != self.gallery.shape[1]:
            raise ValueError(
                f"gallery must hold vectors of the network's width, {vectors.shape[1]}, got {self.gallery.shape[1]}"
            )
        distances, rows = nearest(vectors, self.gallery, 1, metric=self.metric)
        people = self.gallery.people
        return [
            self._match(self.gallery.names[row], None if people is None else people[row], distance)
            for row, distance in zip(rows[:, 0].tolist(), distances[:, 0].tolist(), strict=True)
        ]

    def _ask(self, gallery: Gallery, vectors: Tensor) -> list[Match | None]:
        if not len(gallery):
            return [None] * len(vectors)
        found = (matches.found[0] for matches in gallery.find(vectors, top=1, metric=self.metric))
        return [self._match(one.entry.name, one.entry.person, one.distance) for one in found]

    def _match(self, name: str, person: str | None, distance: float) -> Match:
        if self.calibration is None:
            return Match(name, person, distance)
        return Match(name, person, distance, *self.calibration.judge(torch.tensor([distance]))[0])
