"""A gallery that lives: tracklets are added, found, listed and removed, by several processes at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nl3d.embedding.embeddings import Embeddings, made_by, require_same_maker
from nl3d.gallery.additions import choose_thumbnails, from_json, make_rows, merge_maker, to_json
from nl3d.gallery.answers import Answer, Entry, Matches
from nl3d.gallery.cache import CACHE_BYTES, VectorCache
from nl3d.gallery.conditions import COLUMNS, as_texts, make_condition, to_entry
from nl3d.gallery.queries import read_query
from nl3d.gallery.rows import delete, describe, insert, is_rewrite_pending, rewrite, rewrite_if_pending
from nl3d.gallery.search import search
from nl3d.gallery.store import GalleryFile
from nl3d.gallery.times import Time, format_time, parse_age
from nl3d.metrics.distance import Metric
from nl3d.retrieval.calibration import Calibration

Entries: TypeAlias = list[Entry]


class Added(NamedTuple):
    """What :meth:`Gallery.add` did.

    Attributes:
        tracklets: Tracklets that were added.
        thumbnails: Thumbnails that were added with them.
        note: Why thumbnails are missing; None if none is.
    """

    tracklets: int
    thumbnails: int
    note: str | None


class Gallery:
    """Vectors of tracklets with names, people, cameras, times and thumbnails, in one file.

    Several processes and threads may read and write one file at once. What a method changed is on the disk when it
    returns, and nothing is changed if it raises or its process dies. Search is exact: recall is 1.

    Args:
        path: The file.
        create: Whether to make it if it does not exist.
        cache_bytes: Memory for vectors. Those of a larger gallery are read from the file at each search.

    Raises:
        FileNotFoundError: If the file does not exist and ``create`` is off.
        OSError: If the file system refuses; every method may raise it.
        ValueError: If the file is not a gallery.

    Example:
        >>> import tempfile, nl3d
        >>> gallery = Gallery(tempfile.mkdtemp() + "/people.gallery", create=True)
        >>> gallery.add(nl3d.Embeddings(torch.eye(2), names=("t1", "t2"), people=("ann", "bob"))).tracklets
        2
        >>> gallery.find(torch.tensor([0.0, 0.9]), top=1)[0].found[0].entry.person
        'bob'
    """

    def __init__(self, path: str | Path, *, create: bool = False, cache_bytes: int = CACHE_BYTES) -> None:
        self._file = GalleryFile(path, create=create)
        self.path = self._file.path
        self._cache_bytes = cache_bytes
        self._cache: VectorCache | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """What made the vectors: ``model``, ``weights``, ``network``, ``output``, ``preprocessing``, if known."""
        return from_json(self._file.about("maker"))

    def add(
        self,
        embeddings: Embeddings | str | Path,
        *,
        camera: str | None = None,
        person: str | None = None,
        start: Time | None = None,
        fps: float | None = None,
        prefix: str = "",
        thumbnails: bool | Mapping[str, Tensor] = True,
    ) -> Added:
        """Add all tracklets, or none if anything goes wrong.

        Args:
            embeddings: Embeddings, or a file of them.
            camera: Label of the camera of those tracklets that have none.
            person: Label of the person, likewise.
            start: Time of frame 1, such as ``"2026-11-30T08:00:00Z"``; no times are kept without it.
            fps: Frames per second, with ``start``.
            prefix: Put before every name. Trackers number every video from 1, and names in a gallery differ.
            thumbnails: Whether to keep the middle frame of each tracklet, from what it was embedded from; or images
                ``(3, H, W)`` uint8 by name (without the prefix).

        Raises:
            FileNotFoundError: If the file of embeddings does not exist.
            ValueError: If a name is there already, the vectors have another width or come from another network, or
                there are none.
        """
        opened = embeddings if isinstance(embeddings, Embeddings) else Embeddings.open(embeddings)
        if not len(opened):
            raise ValueError("embeddings must hold at least one tracklet to add, got none")
        rows = make_rows(
            opened, prefix=prefix, person=person, camera=camera, start=start, fps=fps, added=time.time()
        )  # fmt: skip
        with self._file.reading():  # refuse before frames are decoded
            self._check_addition(opened)
            for row in rows:
                if row.name in self:
                    raise ValueError(
                        f"names must differ from those in the {self._file.name}, got {row.name!r}; "
                        "a prefix makes them differ"
                    )
        images, note = choose_thumbnails(opened, thumbnails)
        with self._file.writing():
            self._file.note("maker", to_json(self._check_addition(opened)))
            self._file.note("width", str(opened.shape[1]))
            for first, block in opened.blocks():
                for row, vector in zip(rows[first:], block.numpy().astype("<f4"), strict=False):
                    insert(self._file, row, vector.tobytes(), images.get(row.name.removeprefix(prefix)))
        return Added(len(rows), len(images), note)

    def _check_addition(self, embeddings: Embeddings) -> dict[str, str]:
        """Refuse vectors that do not fit the gallery; return what made the vectors of both."""
        if not len(self):
            return merge_maker({}, embeddings.metadata)
        self._require_width(embeddings.shape[1])
        return merge_maker(self.metadata, embeddings.metadata)

    def find(
        self,
        query: Embeddings | Tensor | np.ndarray[Any, Any] | str | Path,
        *,
        top: int = 10,
        camera: str | Sequence[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        metric: Metric | None = None,
        calibration: Calibration | str | Path | None = None,
    ) -> Answer:
        """Find the tracklets nearest to each query.

        Args:
            query: Embeddings, a file of them, or vectors ``(D,)`` or ``(N, D)``.
            top: Tracklets per query, at most.
            camera: Only tracklets of this camera, or of these.
            since: Only tracklets that were seen at this time or later; those without times are left out.
            until: Only tracklets that were seen at this time or before, likewise.
            metric: ``"euclidean"`` or ``"cosine"``; that of the calibration, else Euclidean, if left out.
            calibration: How distances become probabilities, or its file; the one that comes with the package for this
                network, if there is one and it is of this metric, if left out.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If the gallery or the query is empty, they differ in width or network, or a value is not finite.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        vectors, names, about = read_query(query)
        condition, values = make_condition(camera=camera, since=since, until=until)
        with self._file.reading():
            if not len(self):
                raise ValueError(f"{self._file.name} must hold a tracklet to be found, got none; add some first")
            self._require_width(vectors.shape[1])
            maker = self.metadata
            require_same_maker(about, maker)
            judge = Calibration.choose(calibration, {**maker, **about}, metric)
            measured: Metric = metric or (judge.metric if judge else "euclidean")
            distances, ids = search(vectors, self._vectors().blocks(condition, values), top, measured)
            wanted = sorted(set(ids.flatten().tolist()))
            entries = {key: to_entry(row) for key, *row in describe(self._file, wanted)}
        found = ([entries[key] for key in keys] for keys in ids.tolist())
        matches = (Matches.of(*one, judge) for one in zip(names, found, distances, strict=True))
        return Answer(tuple(matches), measured)

    def list(
        self,
        *,
        name: str | None = None,
        person: str | None = None,
        camera: str | Sequence[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
    ) -> Entries:
        """Return the tracklets of a name, a person, cameras and times, in the order in which they were added."""
        condition, values = make_condition(name=name, person=person, camera=camera, since=since, until=until)
        where = f"WHERE {condition}" if condition else ""
        return [
            to_entry(row) for row in self._file.rows(f"SELECT {COLUMNS} FROM tracklets {where} ORDER BY id", values)
        ]

    def thumbnail(self, name: str) -> bytes | None:
        """Return the thumbnail of a tracklet as JPEG; None if it has none.

        Raises:
            ValueError: If there is no such tracklet.
        """
        found = self._file.rows("SELECT jpeg FROM tracklets LEFT JOIN thumbnails USING (id) WHERE name = ?", (name,))
        if not found:
            raise ValueError(f"{self._file.name} has no tracklet {name!r}")
        return found[0][0]

    def embeddings(self, **wanted: Any) -> Embeddings:
        """Return vectors with names, people, cameras and frames, for :func:`nl3d.rank` and others.

        Args:
            wanted: As for :meth:`list`.

        Raises:
            ValueError: If there are none.
        """
        condition, values = make_condition(**wanted)
        with self._file.reading():
            entries = self.list(**wanted)
            if not entries:
                raise ValueError(f"{self._file.name} has no such tracklet")
            vectors = torch.cat([block.vectors for block in self._vectors().blocks(condition, values)])
            maker = self.metadata
        frames = [entry.frames for entry in entries]
        return Embeddings(
            vectors, None, None if None in frames else torch.tensor(frames), [entry.name for entry in entries],
            metadata=maker, people=[entry.person for entry in entries], cameras=[entry.camera for entry in entries],
        )  # fmt: skip

    def remove(
        self,
        *,
        name: str | Sequence[str] | None = None,
        person: str | Sequence[str] | None = None,
        camera: str | Sequence[str] | None = None,
    ) -> int:
        """Remove tracklets and return their number. Their bytes are in no file of the gallery afterwards.

        Each of several conditions narrows the choice. If the process dies before the file is rewritten, the next call
        of :meth:`remove`, :meth:`prune` or :meth:`optimize` does it.

        Args:
            name: Names of tracklets.
            person: Labels of people.
            camera: Labels of cameras.

        Raises:
            ValueError: If nothing is named, or a label is of no tracklet.
        """
        given = {"name": as_texts(name), "person": as_texts(person), "camera": as_texts(camera)}
        condition, values = make_condition(name=name, person=person, camera=camera)
        if not any(given.values()):
            raise ValueError("name, person or camera must say what to remove, got none of them")
        with self._file.writing():
            for column, texts in given.items():
                for text in texts or ():
                    if not self._file.value(f"SELECT 1 FROM tracklets WHERE {column} = ?", (text,)):
                        raise ValueError(f"{self._file.name} has no tracklet of {column} {text!r}; nothing was removed")
            removed = delete(self._file, condition, values)
        rewrite_if_pending(self._file)
        return removed

    def prune(self, older_than: timedelta | float | str, *, camera: str | Sequence[str] | None = None) -> int:
        """Remove the tracklets that were last seen longer ago than an age, and return their number.

        Those without times are as old as their addition. Their bytes are in no file of the gallery afterwards.

        Args:
            older_than: A ``timedelta``, seconds, or text such as ``"30d"``.
            camera: Only tracklets of this camera, or of these.
        """
        limit = time.time() - parse_age(older_than, name="older_than")
        condition, values = make_condition(camera=camera)
        with self._file.writing():
            old = " AND ".join(filter(None, ["coalesce(last_time, added) < ?", condition]))
            removed = delete(self._file, old, [limit, *values])
        rewrite_if_pending(self._file)
        return removed

    def optimize(self) -> None:
        """Rewrite the file: it becomes as small as it can be, and nothing of what was removed is left in it."""
        rewrite(self._file)

    def stats(self) -> dict[str, Any]:
        """Return counts, times, bytes and what made the vectors, ready for JSON."""
        with self._file.reading():
            ((count, people, cameras, first, last, timed, oldest, newest),) = self._file.rows(
                "SELECT count(*), count(DISTINCT person), count(DISTINCT camera), min(first_time), max(last_time), "
                "count(last_time), min(added), max(added) FROM tracklets"
            )
            thumbnails = self._file.value("SELECT count(*) FROM thumbnails")
            maker, width, pending = self.metadata, self._file.about("width"), is_rewrite_pending(self._file)
            size = self._file.value("PRAGMA page_count") * self._file.value("PRAGMA page_size")
        moments = {"first_seen": first, "last_seen": last, "first_added": oldest, "last_added": newest}
        return {
            "tracklets": count, "people": people, "cameras": cameras, "thumbnails": thumbnails, "with_times": timed,
            **{key: format_time(moment) for key, moment in moments.items() if moment is not None},
            "width": int(width or 0), "made_by": made_by(maker), "bytes": size,
            "rewrite_pending": pending,
        }  # fmt: skip

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return int(self._file.value("SELECT count(*) FROM tracklets"))

    def __contains__(self, name: object) -> bool:
        return bool(self._file.value("SELECT 1 FROM tracklets WHERE name = ?", (name,)))

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gallery({str(self.path)!r}, {len(self)} tracklets)"

    def _require_width(self, width: int) -> None:
        if (known := int(self._file.about("width") or width)) != width:
            raise ValueError(
                f"embeddings must be as wide as those in the {self._file.name}, {known} numbers, got {width}; "
                "embed with the same network"
            )

    def _vectors(self) -> VectorCache:
        width = int(self._file.about("width") or 0)
        if self._cache is None or self._cache.width != width:
            self._cache = VectorCache(self._file, width, self._cache_bytes)
        return self._cache
