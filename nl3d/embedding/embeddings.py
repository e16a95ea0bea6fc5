"""Results of embedding: one vector per tracklet with names and labels, in memory or in a file."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nl3d.data.labels import number_labels
from nl3d.embedding.vector_files import SUFFIXES, StoredVectors, read_columns, write_columns
from nl3d.files import check_output

BLOCK_BYTES = 64 * 2**20


class Embeddings:
    """One vector for each tracklet of a source.

    Args:
        embeddings: ``(N, D)``, float32 or float64; half precision becomes float32.
        track_ids: ``(N,)`` int64, numbers of the tracker or of the folders; from 1 if left out.
        frame_ranges: ``(N, 2)`` int64, first and last frame of each tracklet, from 1, inclusive, if known.
        names: Names of the tracklets, no two the same; their numbers from 1 if left out.
        pids: ``(N,)`` int64, numbers of the people for computing; from ``people`` if left out and all are known.
        camids: ``(N,)`` int64, numbers of the cameras, likewise.
        metadata: How they were made: ``model``, ``weights``, ``network`` (hash of the parameters), ``output``,
            ``preprocessing`` (JSON), ``source``, ``tracks``, ``notes`` (JSON), ``nl3d_version``.
        people: Labels of the people, None for those that are not known. Files are compared by them. The numbers, if
            left out.
        cameras: Labels of the cameras, likewise.

    Attributes:
        path: File that they were opened from, or None.
        has_names: Whether the names were given.

    Raises:
        ValueError: If lengths differ, names repeat, a row is empty or values are not finite.

    Example:
        >>> Embeddings(torch.eye(2), torch.tensor([4, 7]), names=("4", "7"), people=("ann", "bob"))
        Embeddings(2 x 2 float32, 2 people)
    """

    path: Path | None = None
    stamp: tuple[int, int] | None = None  # size and time of change of the file

    def __init__(
        self,
        embeddings: Tensor | StoredVectors,
        track_ids: Tensor | None = None,
        frame_ranges: Tensor | None = None,
        names: Sequence[str] | None = None,
        pids: Tensor | None = None,
        camids: Tensor | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        people: Sequence[str | None] | None = None,
        cameras: Sequence[str | None] | None = None,
    ) -> None:
        if len(embeddings.shape) != 2 or embeddings.shape[1] < 1:
            raise ValueError(f"embeddings must be (N, D), got {tuple(embeddings.shape)}")
        count = embeddings.shape[0]
        self.shape: tuple[int, int] = (count, embeddings.shape[1])
        self.has_names = names is not None
        self.names = tuple(map(str, range(1, count + 1))) if names is None else tuple(names)
        self.track_ids = torch.arange(1, count + 1) if track_ids is None else track_ids
        self.frame_ranges = frame_ranges
        self.metadata = dict(metadata or {})
        given = {"names": names, "track_ids": track_ids, "frame_ranges": frame_ranges, "pids": pids, "camids": camids,
                 "people": people, "cameras": cameras}  # fmt: skip
        for name, value in given.items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else (count if value is None else len(value),)
            if shape != ((count, 2) if name == "frame_ranges" and value is not None else (count,)):
                raise ValueError(f"{name} must have one row for each of the {count} embeddings, got {shape}")
        if len(set(self.names)) != count:
            repeated = Counter(self.names).most_common(1)[0][0]
            raise ValueError(f"names must differ from each other, got {repeated!r} more than once")
        self.people, self.pids = complete_labels(people, pids)
        self.cameras, self.camids = complete_labels(cameras, camids)
        self._vectors: Tensor | StoredVectors = embeddings
        if isinstance(embeddings, Tensor):
            self._vectors = self._checked(embeddings, range(count))

    @classmethod
    def open(cls, path: str | Path) -> Embeddings:
        """Open a file without reading the vectors, if it is safetensors: :meth:`blocks` and :meth:`rows` read them.

        Other files are read whole. No file can run code.

        Args:
            path: File that :meth:`save` wrote, or one with ``embeddings`` or ``features`` ``(N, D)`` and, if known,
                ``names``, ``pids``, ``camids`` (numbers or labels), ``track_ids`` and ``frame_ranges``. A ``.npy`` file
                holds the vectors only. Tables (``.csv``, ``.parquet``, ``.lance``) have columns like :meth:`to_pandas`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it cannot be read, or its columns do not fit each other.
        """
        path = Path(path)
        stamp = None
        if path.is_file():
            status = path.stat()  # before it is read, so that a change in between is noticed
            stamp = status.st_size, status.st_mtime_ns
        columns = read_columns(path)
        try:
            opened = cls(**columns)
        except (TypeError, ValueError) as error:
            raise ValueError(f"embeddings file {str(path)!r}: {error}") from None
        opened.path, opened.stamp = path, stamp
        return opened

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read a file whole; see :meth:`open`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it cannot be read, or its columns do not fit each other.
        """
        loaded = cls.open(path)
        loaded._vectors = loaded.embeddings
        loaded.path = loaded.stamp = None
        return loaded

    @property
    def embeddings(self) -> Tensor:
        """All vectors ``(N, D)``. An opened file is read at each access."""
        if isinstance(self._vectors, Tensor):
            return self._vectors
        vectors = torch.empty(self.shape, dtype=_precision(self._vectors.dtype))
        for start, block in self.blocks():
            vectors[start : start + len(block)] = block
        return vectors

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the vectors in blocks of up to 64 MiB, each with the place of its first row.

        Raises:
            ValueError: If a value of an opened file is NaN or infinite.
        """
        step = rows_per_block(self.shape[1])
        for start in range(0, len(self), step):
            yield start, self.rows(range(start, min(start + step, len(self))))

    def rows(self, rows: Tensor | Sequence[int]) -> Tensor:
        """Return the vectors of some rows, in the order given.

        Raises:
            ValueError: If a value of an opened file is NaN or infinite.
        """
        if isinstance(self._vectors, Tensor):
            return self._vectors[rows.start : rows.stop] if isinstance(rows, range) else self._vectors[rows]
        if isinstance(rows, range):
            return self._checked(self._vectors.read(rows), rows)
        wanted, order = torch.as_tensor(rows).unique(return_inverse=True)  # sorted: the file is read in its order
        return self._checked(self._vectors.read(wanted.tolist()), wanted.tolist())[order]

    def places(self, names: Sequence[str]) -> Tensor:
        """Return the rows of the named tracklets, in the order given.

        Raises:
            ValueError: If a name is unknown.
        """
        places = {name: place for place, name in enumerate(self.names)}
        unknown = next((name for name in names if name not in places), None)
        if unknown is not None:
            known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
            raise ValueError(f"unknown tracklet {unknown!r}; choose from: {known}")
        return torch.tensor([places[name] for name in names], dtype=torch.int64)

    def select(self, names: Sequence[str]) -> Embeddings:
        """Return the named tracklets, in the order given.

        Raises:
            ValueError: If a name is unknown.
        """
        rows = self.places(names)

        def of(column: Any) -> Any:
            if column is None or isinstance(column, Tensor):
                return None if column is None else column[rows]
            return [column[row] for row in rows.tolist()]

        return Embeddings(
            self.rows(rows), of(self.track_ids), of(self.frame_ranges), names, of(self.pids), of(self.camids),
            self.metadata, people=of(self.people), cameras=of(self.cameras),
        )  # fmt: skip

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one file, whole or not at all, that :meth:`load` and ``nl3d evaluate`` read.

        Args:
            path: The file: ``.safetensors``, ``.npz``, ``.parquet`` or ``.csv``. Only CSV drops metadata: it keeps
                network and output layer.
            overwrite: Whether a file that exists may be replaced.

        Raises:
            FileExistsError: If it exists and ``overwrite`` is off.
            FileNotFoundError: If its folder does not exist.
            ModuleNotFoundError: If it is Parquet and pyarrow is not installed.
            ValueError: If it has another suffix.
        """
        path = check_output(path, overwrite=overwrite, suffixes=SUFFIXES)
        vectors = self.shape, _precision(self._vectors.dtype)
        write_columns(path, vectors, self.blocks(), self.columns(), self.metadata)

    def columns(self) -> dict[str, Any]:
        """Return everything but vectors and metadata, as :meth:`__init__` takes it."""
        names = ("track_ids", "frame_ranges", "names", "pids", "camids", "people", "cameras")
        return {name: getattr(self, name) for name in names}

    def to_pandas(self) -> Any:  # pandas.DataFrame
        """Return a ``pandas.DataFrame`` with one row per tracklet and one column per number of its vector.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        first_last = [[None, None]] * len(self) if self.frame_ranges is None else self.frame_ranges.tolist()
        described = {
            "tracklet": self.names, "person": self.people, "camera": self.cameras, "track_id": self.track_ids.tolist(),
            "first_frame": [first for first, _ in first_last], "last_frame": [last for _, last in first_last],
        }  # fmt: skip
        frame = import_pandas().DataFrame(self.embeddings.numpy())
        for place, (name, column) in enumerate(described.items()):
            frame.insert(place, name, column)
        return frame

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        dtype = str(_precision(self._vectors.dtype)).removeprefix("torch.")
        parts = [f"{len(self)} x {self.shape[1]} {dtype}"]
        for name, labels in (("people", self.people), ("cameras", self.cameras)):
            if labels is not None:
                parts.append(f"{len({*labels} - {None})} {name}")
        parts += [made] if (made := made_by(self.metadata)) else []
        parts += [f"in {str(self.path)!r}"] if self.path else []
        return f"Embeddings({', '.join(parts)})"

    def _repr_html_(self) -> str:
        rows: list[Sequence[str]] = [("tracklet", "person", "camera", "frames")]
        for place in range(min(10, len(self))):
            frames = "" if self.frame_ranges is None else "-".join(map(str, self.frame_ranges[place].tolist()))
            labels = (labels and labels[place] for labels in (self.people, self.cameras))
            rows.append((self.names[place], *(label or "" for label in labels), frames))
        return html_table(repr(self) + ("" if len(self) <= 10 else "; the first ten:"), rows)

    def _checked(self, vectors: Tensor, rows: Sequence[int]) -> Tensor:
        vectors = vectors.to(_precision(vectors.dtype))
        where = "embeddings" if self.path is None else f"embeddings file {str(self.path)!r}"
        require_finite(vectors, self.names, rows, what=where)
        return vectors


def _precision(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def complete_labels(
    labels: Sequence[str | None] | None, numbers: Tensor | None
) -> tuple[tuple[str | None, ...] | None, Tensor | None]:
    """Complete labels from numbers, and numbers from labels if all are known."""
    if labels is None:
        return (None if numbers is None else tuple(map(str, numbers.tolist()))), numbers
    known = [label for label in labels if label is not None]
    if numbers is None and len(known) == len(labels):
        numbered = number_labels(known)
        numbers = torch.tensor([numbered[label] for label in known], dtype=torch.int64)
    return (tuple(labels) if known or not labels else None), numbers


def rows_per_block(width: int) -> int:
    """Return the number of float32 rows that make a block."""
    return max(1, BLOCK_BYTES // (4 * max(1, width)))


def require_finite(
    vectors: Tensor, names: Sequence[str], rows: Sequence[int] | None = None, *, what: str = "embeddings"
) -> None:
    """Refuse vectors that are not finite, and name the first tracklet with one.

    Args:
        vectors: ``(N, D)``.
        names: Names of all tracklets.
        rows: Tracklet of each vector; in order if left out.
        what: Name of the vectors in errors.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    if vectors.numel() and not torch.stack(vectors.aminmax()).isfinite().all():  # takes no memory of that size
        broken = int((~torch.isfinite(vectors)).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{what} must be finite, got NaN or infinite values for tracklet "
            f"{names[broken if rows is None else rows[broken]]!r}; check the weights, and leave out amp if it was on"
        )


def require_same_maker(query: Mapping[str, str], gallery: Mapping[str, str]) -> None:
    """Refuse to compare vectors of two networks, or of two layers of one. Metadata without them is accepted.

    Args:
        query: Metadata of one set.
        gallery: Metadata of the other.

    Raises:
        ValueError: If both name what made them and it is not the same.
    """
    for key in ("network", "output"):
        first, second = query.get(key), gallery.get(key)
        if first and second and first != second:
            raise ValueError(
                f"query and gallery must come from the same {key}, got {made_by(query)} and {made_by(gallery)}; "
                "embed both with the same model, weights and output layer"
            )


def made_by(metadata: Mapping[str, str]) -> str:
    """Name what made a set, as far as its metadata says."""
    parts = (metadata.get(key) for key in ("model", "weights", "output", "network"))
    return "/".join(part for part in parts if part)


def import_pandas() -> Any:
    """Import pandas, which is optional.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    try:
        return import_module("pandas")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("to_pandas needs pandas; install it with: pip install pandas") from None


def html_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table with a title; the first row is the header. All text is escaped."""
    lines = []
    for place, cells in enumerate(rows):
        tag = "td" if place else "th"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>")
    return f"<p>{html.escape(title)}</p><table>{''.join(lines)}</table>"
