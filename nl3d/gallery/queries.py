"""What is asked of a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nl3d.embedding.embeddings import Embeddings, require_finite


def read_query(query: Any) -> tuple[Tensor, Sequence[str], Mapping[str, str]]:
    """Return vectors, names and metadata of queries."""
    if isinstance(query, str | Path):
        query = Embeddings.open(query)
    if isinstance(query, Embeddings):
        vectors, names, about = query.embeddings, list(query.names), query.metadata
    else:
        vectors = torch.as_tensor(query).detach().cpu()
        if vectors.ndim == 1:
            vectors = vectors[None]
        if vectors.ndim != 2 or not vectors.is_floating_point():
            raise ValueError(f"query must be vectors (D,) or (N, D), got {vectors.dtype} {tuple(vectors.shape)}")
        names, about = [str(place) for place in range(1, len(vectors) + 1)], {}
        require_finite(vectors, names, what="query")
    if not len(vectors):
        raise ValueError("query must hold at least one tracklet, got none")
    return vectors.float(), names, about
