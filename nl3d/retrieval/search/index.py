"""A FAISS index of a gallery: built block by block, kept in a file that is mapped rather than loaded, searched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nl3d.data.frames.names import require_file
from nl3d.embedding.embeddings import Embeddings, rows_per_block
from nl3d.files import check_output, replacing
from nl3d.metrics.distance import Metric
from nl3d.retrieval.search.nearest import normalise, order_by_distance
from nl3d.retrieval.search.settings import IndexSettings, refuse_foreign, training_rows

MAGIC = b"nl3dind2"
_REBUILD = "build it again (--rebuild-index)"
_LARGEST_CARD = 2**16  # bytes
_ALLOWANCE = 256 * 2**20  # bytes that a small file may ask for


class GalleryIndex:
    """An index of a gallery's vectors, and the gallery that it was built from; :func:`nl3d.rank` takes it as one.

    The index only proposes: for each query it names ``candidates`` rows. Their vectors are read from the gallery and
    measured as everywhere in nl3d, so distances are exact. The index can only miss rows.

    Source: Johnson et al. 2017, arXiv:1702.08734 (lists and codes); Malkov and Yashunin 2016, arXiv:1603.09320 (hnsw).

    Attributes:
        gallery: What was indexed.
        metric: How distances are measured.
        settings: How it was built.
        candidates: Rows named for each query; None is four times those asked for.
        nprobe: Lists that ivfpq looks into; by default one in 16.
        ef_search: Rows that hnsw keeps in view; by default 128.

    Example:
        >>> people = nl3d.Embeddings(torch.eye(3), torch.arange(3), torch.ones(3, 2).long(), ("a", "b", "c"))
        >>> index = GalleryIndex.build(people)
        >>> nl3d.rank(people, index, top=1)[0].found[0].distance
        1.4142135381698608
    """

    def __init__(self, index: Any, gallery: Embeddings, metric: Metric, settings: IndexSettings, digest: str) -> None:
        self._index, self._digest = index, digest
        self.gallery, self.metric, self.settings = gallery, metric, settings
        self._centre = _centre(gallery, metric)
        self.candidates: int | None = None
        self.nprobe = max(1, ceil((settings.nlist or 1) / 16))
        self.ef_search = 128

    @classmethod
    def build(
        cls, gallery: Embeddings, settings: IndexSettings | None = None, *, metric: Metric = "euclidean"
    ) -> GalleryIndex:
        """Index a gallery. It is read once, after its training rows.

        Args:
            gallery: Embeddings, in memory or opened.
            settings: How to build; chosen from the size of the gallery, if left out.
            metric: ``"euclidean"`` or ``"cosine"``.

        Raises:
            ModuleNotFoundError: If FAISS is not installed.
            ValueError: If a setting is out of range or the gallery too small.
        """
        faiss = import_faiss()
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric must be one of 'euclidean', 'cosine', got {metric!r}")
        rows, width = gallery.shape
        settings = (settings or IndexSettings()).resolved(rows, width)
        index = faiss.index_factory(width, _recipe(settings), faiss.METRIC_L2 if metric == "euclidean" else 0)
        hashed, centre = _hash(gallery), _centre(gallery, metric)
        with _threads_of_torch(faiss):
            if settings.kind == "hnsw":
                index.hnsw.efConstruction = settings.ef_construction
            if settings.kind == "ivfpq":
                index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # or FAISS prints
                index.train(_prepared(_training_sample(gallery, settings), metric, centre).numpy())
            for _, block in gallery.blocks():
                hashed.update(block.contiguous().numpy().data)
                index.add(_prepared(block, metric, centre).numpy())
        return cls(index, gallery, metric, settings, hashed.hexdigest())

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one file, whole or not at all: FAISS's own format, followed by what ties it to its gallery.

        Raises:
            FileExistsError: If there is such a file and ``overwrite`` is off.
            FileNotFoundError: If its folder does not exist.
        """
        path = check_output(path, overwrite=overwrite)
        rows, width = self.gallery.shape
        card = {"metric": self.metric, "settings": self.settings.given(), "gallery": self._digest,
                "rows": rows, "width": width, "stamp": self.gallery.stamp}  # fmt: skip
        tail = json.dumps(card).encode()
        with replacing(path) as unfinished:
            import_faiss().write_index(self._index, str(unfinished))
            with unfinished.open("ab") as file:  # FAISS reads no further than its own part
                file.write(tail + len(tail).to_bytes(8, "little") + MAGIC)

    @classmethod
    def open(cls, path: str | Path, gallery: Embeddings) -> GalleryIndex:
        """Open a file that :meth:`save` wrote; it is mapped, so that memory holds what is being searched.

        Args:
            path: The file.
            gallery: What it was built from. It is read and compared unless its file has the size and time of change
                that it had then.

        Raises:
            FileNotFoundError: If there is no such file.
            ModuleNotFoundError: If FAISS is not installed.
            ValueError: If it is no index, or one of another gallery.
        """
        faiss = import_faiss()
        where = f"index file {str(path)!r}"
        card, settings = _read_card(Path(path), where)
        rows, width = gallery.shape
        if (card["rows"], card["width"]) != (rows, width):
            raise ValueError(
                f"{where} must be of this gallery of {rows} x {width} numbers, "
                f"got one of {card['rows']} x {card['width']}; {_REBUILD}"
            )
        stamp = None if gallery.stamp is None else [*gallery.stamp]
        if (stamp is None or stamp != card["stamp"]) and _digest(gallery) != card["gallery"]:
            raise ValueError(f"{where} must be of this gallery, whose vectors have changed since; {_REBUILD}")
        try:
            with _bounded_reads(faiss, 2 * Path(path).stat().st_size + _ALLOWANCE):
                index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, MemoryError):
            raise ValueError(f"{where} cannot be read by FAISS {faiss.__version__}; {_REBUILD}") from None
        kind = type(index).__name__
        if (index.ntotal, index.d) != (rows, width) or not kind.startswith(_FAISS_CLASSES[settings.kind or "flat"]):
            raise ValueError(f"{where} must hold what it says, got {kind} of {index.ntotal} x {index.d}; {_REBUILD}")
        return cls(index, gallery, card["metric"], settings, card["gallery"])

    def set_effort(
        self, *, candidates: int | None = None, nprobe: int | None = None, ef_search: int | None = None
    ) -> None:
        """Search more widely, or less; what is None stays as it is.

        Raises:
            ValueError: If a number is below 1, or a setting belongs to another kind.
        """
        refuse_foreign(self.settings.kind, nprobe=nprobe, ef_search=ef_search)
        if candidates is not None and candidates < 1:
            raise ValueError(f"candidates must be at least 1, got {candidates}")
        self.candidates = self.candidates if candidates is None else candidates
        self.nprobe = self.nprobe if nprobe is None else nprobe
        self.ef_search = self.ef_search if ef_search is None else ef_search

    def search(self, query: Tensor, count: int, *, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the nearest gallery rows of each query, as far as the index proposes them.

        Args:
            query: Vectors to search for.
            count: Rows to find for each.
            own: Row of each query in the gallery, to be left out.

        Shape:
            - query: ``(num_query, D)``
            - own: ``(num_query,)``
            - Output: distances, ascending, and rows, both ``(num_query, count)``; infinite and -1 where the index
              found no more
        """
        faiss = import_faiss()
        fetch = max(self.candidates or 4 * count, count + (own is not None))
        fetch = min(fetch, len(self.gallery))
        effort = None
        if self.settings.kind == "ivfpq":
            effort = faiss.SearchParametersIVF(nprobe=self.nprobe)
        if self.settings.kind == "hnsw":
            effort = faiss.SearchParametersHNSW(efSearch=max(self.ef_search, fetch))
        distances = query.new_full((len(query), count), torch.inf)
        rows = torch.full((len(query), count), -1, dtype=torch.int64)
        step = max(1, rows_per_block(query.shape[1]) // fetch)
        for start in range(0, len(query), step):
            some = slice(start, start + step)
            with _threads_of_torch(faiss):
                _, named = self._index.search(
                    _prepared(query[some], self.metric, self._centre).numpy(), fetch, params=effort
                )
            found = torch.from_numpy(named)
            if own is not None:
                found[found == own[some, None]] = -1
            if int(found.max()) >= len(self.gallery):
                raise ValueError(f"index must name rows below {len(self.gallery)}, got {int(found.max())}; {_REBUILD}")
            known, places = found.clamp(min=0).unique(return_inverse=True)
            gallery = self.gallery.rows(known)
            dtype = torch.promote_types(query.dtype, gallery.dtype)
            places = torch.where(found < 0, -1, places)
            ascending = order_by_distance(query[some].to(dtype), gallery.to(dtype), places, count, self.metric)
            distances[some, :fetch] = ascending[0].to(distances.dtype)
            rows[some, :fetch] = torch.where(ascending[1] < 0, -1, known[ascending[1]])
        return distances, rows


def is_index(path: Path) -> bool:
    """Whether a file ends as those of :meth:`GalleryIndex.save` do, of any version."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - len(MAGIC)))
        return file.read()[:-1] == MAGIC[:-1]


def import_faiss() -> Any:
    """Import FAISS, which is an extra."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("an index needs FAISS; install it with: pip install 'nl3d[search]'") from error
    return faiss


@contextmanager
def _bounded_reads(faiss: Any, size: int) -> Iterator[None]:
    """Let FAISS allocate no vector larger than ``size`` bytes while it reads, whatever a damaged file says."""
    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):
        yield
        return
    before = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(size)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before)


@contextmanager
def _threads_of_torch(faiss: Any) -> Iterator[None]:
    """Let FAISS, which has an OpenMP of its own, use as many threads as PyTorch."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


_FAISS_CLASSES = {"flat": "IndexFlat", "hnsw": "IndexHNSWFlat", "ivfpq": "IndexIVFPQ"}


def _recipe(settings: IndexSettings) -> str:
    """Return the settings as FAISS's factory takes them."""
    if settings.kind == "ivfpq":
        return f"IVF{settings.nlist},PQ{settings.pq_bytes}x8np"  # no polysemous codes: minutes, and not used here
    return "Flat" if settings.kind == "flat" else f"HNSW{settings.hnsw_m},Flat"


def _centre(gallery: Embeddings, metric: Metric) -> Tensor:
    """Return a point amid the gallery; FAISS loses digits of vectors that lie far from zero."""
    if metric == "cosine":
        return torch.zeros(gallery.shape[1])
    return gallery.rows(torch.arange(0, len(gallery), max(1, len(gallery) // 256))).median(0).values


def _prepared(rows: Tensor, metric: Metric, centre: Tensor) -> Tensor:
    """Return rows as FAISS takes them; its inner product is the cosine of rows of length one."""
    rows = (normalise(rows) if metric == "cosine" else rows - centre).float().contiguous()
    if not torch.linalg.vector_norm(rows, dim=1).square().isfinite().all():
        raise ValueError("embeddings must have finite squares, got values that are too large; normalise them")
    return rows


def _training_sample(gallery: Embeddings, settings: IndexSettings) -> Tensor:
    """Draw training rows, one from each of as many stretches of the gallery, so that its file is read in order."""
    assert settings.nlist is not None
    rows, width = gallery.shape
    count = min(training_rows(rows, width), max(64 * settings.nlist, 2**14))
    places = torch.arange(count) + torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return gallery.rows((places * rows / count).long().clamp(max=rows - 1))


def _hash(gallery: Embeddings) -> Any:
    return hashlib.blake2b(f"{gallery.shape[0]} {gallery.shape[1]}".encode(), digest_size=20)


def _digest(gallery: Embeddings) -> str:
    hashed = _hash(gallery)
    for _, block in gallery.blocks():
        hashed.update(block.contiguous().numpy().data)
    return hashed.hexdigest()


def _read_card(path: Path, where: str) -> tuple[dict[str, Any], IndexSettings]:
    """Read and check what stands behind FAISS's part of an index file."""
    require_file(path, what="index file")
    if not is_index(path):
        raise ValueError(f"{where} must be written by nl3d rank --index-file, got something else")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 16))
        length = int.from_bytes(file.read(8), "little")
        if file.read() != MAGIC:
            raise ValueError(f"{where} is of an older version; {_REBUILD}")
        try:
            if not 0 < length <= min(size - 16, _LARGEST_CARD):
                raise ValueError("its length is wrong")
            file.seek(size - 16 - length)
            card = json.loads(file.read(length))
            settings = IndexSettings(**card["settings"]).resolved(card["rows"], card["width"])
            if card["metric"] not in ("euclidean", "cosine") or not isinstance(card["gallery"], str):
                raise ValueError("its metric is unknown")
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError, ZeroDivisionError) as error:
            raise ValueError(f"{where} is damaged ({type(error).__name__}: {error}); {_REBUILD}") from None
    return {"stamp": None, **card}, settings
