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
from torch.nn import functional as F

from nl3d.embedding.stored import StoredEmbeddings, Vectors, blocks_of, rows_at_once, vectors_of, width_of
from nl3d.files import check_output, replacing
from nl3d.metrics.distance import Metric
from nl3d.retrieval.search.settings import IndexSettings, refuse_foreign, training_rows

MAGIC = b"nl3dindx"


class GalleryIndex:
    """An index of a gallery's vectors, and the gallery that it was built from; :func:`nl3d.rank` takes it as one.

    The index only proposes: for each query it names ``candidates`` rows, whose vectors are then read from the gallery,
    so that the distances given are exact, and measured as everywhere in nl3d. What it can do is miss a row.

    Source: Johnson et al. 2017, arXiv:1702.08734 (lists and codes); Malkov and Yashunin 2016, arXiv:1603.09320 (hnsw).

    Attributes:
        gallery: What was indexed.
        metric: How distances are measured.
        settings: How it was built.
        candidates: Rows named for each query; None is four times those asked for.
        nprobe: Lists that ivfpq looks into; one in 16 unless told.
        ef_search: Rows that hnsw keeps in view; 128 unless told.

    Example:
        >>> people = nl3d.Embeddings(torch.eye(3), torch.arange(3), torch.ones(3, 2).long(), ("a", "b", "c"))
        >>> index = GalleryIndex.build(people)
        >>> nl3d.rank(people, index, top=1)[0].found[0].distance
        1.4142135381698608
    """

    def __init__(self, index: Any, gallery: Vectors, metric: Metric, settings: IndexSettings, digest: str) -> None:
        self._index, self._digest = index, digest
        self.gallery, self.metric, self.settings = gallery, metric, settings
        self.candidates: int | None = None
        self.nprobe = max(1, ceil((settings.nlist or 1) / 16))
        self.ef_search = 128

    @classmethod
    def build(
        cls, gallery: Vectors, settings: IndexSettings | None = None, *, metric: Metric = "euclidean"
    ) -> GalleryIndex:
        """Index a gallery, which is read once, and its training rows once before.

        Args:
            gallery: Embeddings in memory or in their file.
            settings: How to build; chosen from the size of the gallery, if left out.
            metric: ``"euclidean"`` or ``"cosine"``.

        Raises:
            ModuleNotFoundError: If FAISS is not installed.
            ValueError: If a setting is out of range or the gallery too small.
        """
        faiss = import_faiss()
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric must be one of 'euclidean', 'cosine', got {metric!r}")
        rows, width = len(gallery), width_of(gallery)
        settings = (settings or IndexSettings()).resolved(rows, width)
        index = faiss.index_factory(width, _recipe(settings), faiss.METRIC_L2 if metric == "euclidean" else 0)
        hashed = _hash(gallery)
        with _threads_of_torch(faiss):
            if settings.kind == "hnsw":
                index.hnsw.efConstruction = settings.ef_construction
            if settings.kind == "ivfpq":
                index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # or FAISS prints
                index.train(_prepared(_training_sample(gallery, settings), metric).numpy())
            for _, block in blocks_of(gallery):
                hashed.update(block.contiguous().numpy().data)
                index.add(_prepared(block, metric).numpy())
        return cls(index, gallery, metric, settings, hashed.hexdigest())

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one file, whole or not at all: FAISS's own, and behind it what ties it to its gallery.

        Raises:
            FileExistsError: If there is such a file and ``overwrite`` is off.
            FileNotFoundError: If its folder does not exist.
        """
        path = check_output(path, overwrite=overwrite)
        card = {"metric": self.metric, "settings": self.settings.given(), "gallery": self._digest,
                "rows": len(self.gallery), "width": width_of(self.gallery), "stamp": _stamp(self.gallery)}  # fmt: skip
        tail = json.dumps(card).encode()
        with replacing(path) as unfinished:
            import_faiss().write_index(self._index, str(unfinished))
            with unfinished.open("ab") as file:  # FAISS reads no further than its own part
                file.write(tail + len(tail).to_bytes(8, "little") + MAGIC)

    @classmethod
    def open(cls, path: str | Path, gallery: Vectors) -> GalleryIndex:
        """Open a file that :meth:`save` wrote; it is mapped, so that memory holds what is being searched.

        Args:
            path: The file.
            gallery: What it was built from. If its file has another size or time of change than then, it is read and
                compared; embeddings in memory are compared each time.

        Raises:
            FileNotFoundError: If there is no such file.
            ModuleNotFoundError: If FAISS is not installed.
            ValueError: If it is no index, or one of another gallery.
        """
        faiss = import_faiss()
        where = f"index file {str(path)!r}"
        card = _read_card(Path(path), where)
        stamp = _stamp(gallery)
        if (card["rows"], card["width"]) != (len(gallery), width_of(gallery)):
            raise ValueError(
                f"{where} must be of this gallery of {len(gallery)} x {width_of(gallery)} numbers, "
                f"got one of {card['rows']} x {card['width']}; build it again (--rebuild-index)"
            )
        if (stamp is None or stamp != card["stamp"]) and _digest(gallery) != card["gallery"]:
            raise ValueError(
                f"{where} must be of this gallery, whose vectors have changed since; build it again (--rebuild-index)"
            )
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError(
                f"{where} cannot be read by FAISS {faiss.__version__}; build it again (--rebuild-index)"
            ) from error
        return cls(index, gallery, card["metric"], IndexSettings(**card["settings"]), card["gallery"])

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
        """Find the nearest gallery rows of each query, as far as the index knows them.

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
        distances = torch.full((len(query), count), torch.inf)
        rows = torch.full((len(query), count), -1, dtype=torch.int64)
        step = max(1, rows_at_once(query.shape[1]) // fetch)
        for start in range(0, len(query), step):
            some = slice(start, start + step)
            with _threads_of_torch(faiss):
                _, named = self._index.search(_prepared(query[some], self.metric).numpy(), fetch, params=effort)
            found = torch.from_numpy(named)
            if own is not None:
                found[found == own[some, None]] = -1
            found = found.sort(dim=1).values  # so that equal distances stand in the order of the gallery
            ascending = self._measured(query[some], found).sort(dim=1, stable=True)
            distances[some, :fetch] = ascending.values[:, :count]
            rows[some, :fetch] = found.gather(1, ascending.indices[:, :count])
        return distances, rows

    def _measured(self, query: Tensor, found: Tensor) -> Tensor:
        """Measure from each query to what the index named for it; infinitely far is what it did not name."""
        known, places = found.clamp(min=0).unique(return_inverse=True)
        gallery = _prepared(vectors_of(self.gallery, known), self.metric)[places]  # (num_query, fetch, D)
        query = _prepared(query, self.metric)[:, None]
        if self.metric == "euclidean":
            measured = torch.linalg.vector_norm(gallery.sub_(query), dim=2)
        else:
            measured = (1 - (gallery @ query.mT)[:, :, 0]).clamp_(min=0)
        return measured.masked_fill_(found < 0, torch.inf)


def import_faiss() -> Any:
    """Import FAISS where it is used, since it is an extra.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("an index needs FAISS; install it with: pip install 'nl3d[search]'") from error
    return faiss


@contextmanager
def _threads_of_torch(faiss: Any) -> Iterator[None]:
    """Let FAISS, which has an OpenMP of its own, use as many threads as PyTorch does."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _recipe(settings: IndexSettings) -> str:
    """Say the settings in the language of FAISS's factory."""
    if settings.kind == "ivfpq":
        return f"IVF{settings.nlist},PQ{settings.pq_bytes}x8np"  # no polysemous codes: minutes, and not used here
    return "Flat" if settings.kind == "flat" else f"HNSW{settings.hnsw_m},Flat"


def _prepared(rows: Tensor, metric: Metric) -> Tensor:
    """Give rows as FAISS wants them; it has the inner product, which is the cosine of rows of length one."""
    if metric == "cosine":
        return F.normalize(rows / rows.abs().amax(1, keepdim=True).clamp(min=1e-30), dim=1)
    if not torch.linalg.vector_norm(rows, dim=1).square().isfinite().all():
        raise ValueError("embeddings must have finite squares, got values that are too large; normalise them")
    return rows.contiguous()


def _training_sample(gallery: Vectors, settings: IndexSettings) -> Tensor:
    """Draw training rows, one from each of as many stretches of the gallery, so that its file is walked once."""
    assert settings.nlist is not None
    rows = len(gallery)
    count = min(training_rows(rows, width_of(gallery)), max(64 * settings.nlist, 2**14))
    places = torch.arange(count) + torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return vectors_of(gallery, (places * rows / count).long().clamp(max=rows - 1))


def _hash(gallery: Vectors) -> Any:
    return hashlib.blake2b(f"{len(gallery)} {width_of(gallery)}".encode(), digest_size=20)


def _digest(gallery: Vectors) -> str:
    hashed = _hash(gallery)
    for _, block in blocks_of(gallery):
        hashed.update(block.contiguous().numpy().data)
    return hashed.hexdigest()


def _stamp(gallery: Vectors) -> list[int] | None:
    """Tell size and time of change of a gallery's file."""
    if not isinstance(gallery, StoredEmbeddings):
        return None
    return [gallery.stamp.st_size, gallery.stamp.st_mtime_ns]


def _read_card(path: Path, where: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{where} does not exist")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 16))
        end = file.read()
        length = int.from_bytes(end[:8], "little")
        if len(end) == 16 and end[8:] == MAGIC and length <= size - 16:
            file.seek(size - 16 - length)
            return json.loads(file.read(length))
    raise ValueError(f"{where} must be written by nl3d rank --index-file, got something else")
