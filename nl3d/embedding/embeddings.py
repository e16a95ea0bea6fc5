"""The result of embedding: one vector a tracklet, and what is needed to use it, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nl3d.files import check_output, write_safetensors


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector for each tracklet of a source.

    Args:
        embeddings: ``(N, D)`` float32.
        track_ids: ``(N,)`` int64, the tracker's numbers, or those of the folders.
        frame_ranges: ``(N, 2)`` int64, first and last frame of each tracklet, from 1, inclusive.
        names: Names of the tracklets, no two the same.
        pids: ``(N,)`` int64, identities, where all are known.
        camids: ``(N,)`` int64, cameras, where all are known.
        metadata: How they were made: ``model``, ``weights``, ``network`` (fingerprint of the parameters), ``output``,
            ``preprocessing`` (JSON), ``source``, ``tracks``, ``notes`` (JSON), ``nl3d_version``.

    Raises:
        ValueError: If lengths differ, names repeat or values are not finite.

    Example:
        >>> result = Embeddings(torch.eye(2), torch.tensor([4, 7]), torch.tensor([[1, 9], [5, 20]]), ("4", "7"))
        >>> len(result), result.embeddings.shape
        (2, torch.Size([2, 2]))
    """

    embeddings: Tensor
    track_ids: Tensor
    frame_ranges: Tensor
    names: tuple[str, ...]
    pids: Tensor | None = None
    camids: Tensor | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.embeddings.ndim != 2:
            raise ValueError(f"embeddings must be (N, D), got {tuple(self.embeddings.shape)}")
        for name, shape in (("embeddings", None), ("track_ids", (count,)), ("frame_ranges", (count, 2)),
                            ("pids", (count,)), ("camids", (count,))):  # fmt: skip
            value = getattr(self, name)
            if value is None:
                continue
            if len(value) != count or (shape is not None and tuple(value.shape) != shape):
                raise ValueError(f"{name} must have one row for each of the {count} names, got {tuple(value.shape)}")
        if len(set(self.names)) != count:
            raise ValueError("names must differ from each other")
        require_finite(self.embeddings, self.names)

    def __len__(self) -> int:
        return len(self.names)

    def select(self, names: Sequence[str]) -> Embeddings:
        """Keep the named tracklets, in the order given.

        Raises:
            ValueError: If a name is unknown.
        """
        places = {name: place for place, name in enumerate(self.names)}
        unknown = [name for name in names if name not in places]
        if unknown:
            known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
            raise ValueError(f"unknown tracklet {unknown[0]!r}; choose from: {known}")
        rows = torch.tensor([places[name] for name in names], dtype=torch.int64)
        return Embeddings(
            self.embeddings[rows],
            self.track_ids[rows],
            self.frame_ranges[rows],
            tuple(names),
            None if self.pids is None else self.pids[rows],
            None if self.camids is None else self.camids[rows],
            self.metadata,
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one safetensors file, whole or not at all.

        Args:
            path: The file.
            overwrite: Whether a file that is there may be replaced.

        Raises:
            FileExistsError: If there is such a file and ``overwrite`` is off.
            FileNotFoundError: If its folder does not exist.
        """
        path = check_output(path, overwrite=overwrite)
        tensors = {"embeddings": self.embeddings, "track_ids": self.track_ids, "frame_ranges": self.frame_ranges}
        if self.pids is not None:
            tensors["pids"] = self.pids
        if self.camids is not None:
            tensors["camids"] = self.camids
        metadata = {**self.metadata, "content": "nl3d embeddings", "names": json.dumps(self.names)}
        write_safetensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no safetensors file, or holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"embeddings file {str(path)!r} does not exist; nl3d embed writes it")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"embeddings file {str(path)!r} is no safetensors file: {error}") from error
        missing = {"embeddings", "track_ids", "frame_ranges"} - set(tensors)
        if missing or "names" not in metadata:
            raise ValueError(
                f"embeddings file {str(path)!r} must be written by nl3d embed, "
                f"but it lacks {', '.join(sorted(missing) or ['names'])}"
            )
        names = tuple(json.loads(metadata.pop("names")))
        for key in ("format", "content"):
            metadata.pop(key, None)
        try:
            return cls(
                tensors["embeddings"].float(),
                tensors["track_ids"],
                tensors["frame_ranges"],
                names,
                tensors.get("pids"),
                tensors.get("camids"),
                metadata,
            )
        except ValueError as error:
            raise ValueError(f"embeddings file {str(path)!r}: {error}") from error


def require_made_alike(query: Mapping[str, str], gallery: Mapping[str, str]) -> None:
    """Refuse to compare what two networks, or two layers of one, gave; metadata that says nothing is taken.

    Args:
        query: Metadata of the one file.
        gallery: Metadata of the other.

    Raises:
        ValueError: If both say what made them and it is not the same.
    """
    for key in ("network", "output"):
        first, second = query.get(key), gallery.get(key)
        if first and second and first != second:
            raise ValueError(
                f"query and gallery must come from the same {key}, got {_maker(query)} and {_maker(gallery)}; "
                "embed both with the same model, weights and output layer"
            )


def _maker(metadata: Mapping[str, str]) -> str:
    parts = (metadata.get(key) for key in ("model", "weights", "output", "network"))
    return "/".join(part for part in parts if part)


def require_finite(vectors: Tensor, names: Sequence[str]) -> None:
    """Refuse vectors of which one is not finite, and say whose.

    Raises:
        ValueError: If there is such a vector.
    """
    if not torch.isfinite(vectors).all():
        broken = int((~torch.isfinite(vectors)).any(dim=1).nonzero()[0])
        raise ValueError(
            f"embeddings must be finite, got NaN or infinite values for tracklet {names[broken]!r}; "
            "check the weights, and leave out amp if it was on"
        )
