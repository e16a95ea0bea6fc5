"""The file of a gallery: an SQLite database that is created, checked, read and written in transactions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nl3d.files import check_output

APPLICATION = 0x6E6C3364  # "nl3d" in the header of the file
VERSION = 1
WAIT_SECONDS = 60.0  # for another process that writes
CACHE_KIB = 65536  # an addition that fits leaves others reading until its end
PAGE_BYTES = 32768  # fifteen vectors of 512 numbers; in pages of 4096 bytes half of the file would be empty

SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tracklets (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, person TEXT, camera TEXT,
    first_frame INTEGER, last_frame INTEGER, first_time REAL, last_time REAL, added REAL NOT NULL
);
CREATE INDEX tracklets_by_camera ON tracklets (camera, last_time);
CREATE INDEX tracklets_by_person ON tracklets (person);
CREATE INDEX tracklets_by_time ON tracklets (last_time);
CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE thumbnails (id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
"""
"""Ids grow and are never used twice. A vector is float32, little-endian; times are seconds since 1970."""


class GalleryFile:
    """An open file. Every method may be called from any thread; one works at a time.

    A transaction is on the disk once it returns (``synchronous=EXTRA``), and undone if its process dies before. What is
    deleted is overwritten with zeros (``secure_delete``).

    Args:
        path: The file.
        create: Whether a file that does not exist is made.

    Raises:
        FileNotFoundError: If it does not exist and ``create`` is off, or its folder does not exist.
        IsADirectoryError: If it is a folder.
        OSError: If the file system refuses.
        ValueError: If it is not a gallery.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        self.name = f"gallery {str(path)!r}"
        check_gallery_path(self.path, create=create)
        self._lock = threading.RLock()
        with self._sentences():
            self._connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}",
                uri=True,
                timeout=WAIT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            self._prepare(create)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, create: bool) -> None:
        with self._sentences():
            for setting in ("synchronous = EXTRA", "secure_delete = ON", f"cache_size = -{CACHE_KIB}"):
                self._connection.execute(f"PRAGMA {setting}")
            if create and self._is_blank():
                self._connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                with self.writing():
                    if self._is_blank():  # another process may have been first
                        self._connection.execute(f"PRAGMA application_id = {APPLICATION}")
                        self._connection.execute(f"PRAGMA user_version = {VERSION}")
                        for statement in SCHEMA.split(";\n"):
                            self._connection.execute(statement)
        with self._sentences():
            if self._is_blank():
                raise FileNotFoundError(f"{self.name} holds nothing; nl3d gallery add makes it")
            application, version = self.value("PRAGMA application_id"), self.value("PRAGMA user_version")
        if application != APPLICATION:
            raise ValueError(f"{self.name} must be a file that nl3d gallery add wrote, got another SQLite database")
        if version != VERSION:
            raise ValueError(f"{self.name} must be of version {VERSION}, got {version}; install a newer nl3d")

    def _is_blank(self) -> bool:
        return self.value("SELECT count(*) FROM sqlite_master") == 0

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock, self._sentences():
            return self._connection.execute(statement, values).fetchall()

    def stream(self, statement: str, values: Sequence[Any] = (), *, at_once: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query, some at a time."""
        with self._lock, self._sentences():
            cursor = self._connection.execute(statement, values)
            while found := cursor.fetchmany(at_once):
                yield found

    def value(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row of a query, or None."""
        row = next(iter(self.rows(statement, values)), None)
        return None if row is None else row[0]

    def write(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement inside of :meth:`writing`."""
        return self._connection.execute(statement, values)

    def about(self, key: str) -> str | None:
        """Return what is noted of the gallery as a whole."""
        return self.value("SELECT value FROM about WHERE key = ?", (key,))

    def note(self, key: str, text: str) -> None:
        """Note something of the gallery as a whole, inside of :meth:`writing`."""
        self.write("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, text))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write in one transaction: all of it is on the disk at the end, or nothing if anything goes wrong."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read one state of the file, whatever other processes write meanwhile."""
        with self._transaction("BEGIN"):
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self._lock, self._sentences():
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite undoes some failures by itself
                    self._connection.execute("ROLLBACK")
                raise

    def rewrite(self) -> None:
        """Write the whole file anew, without free pages and without what deleted rows may have left in others."""
        with self._lock, self._sentences():
            self._connection.execute("VACUUM")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Raise SQLite's errors as one sentence about the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._refusal(error) from error

    def _refusal(self, error: sqlite3.Error) -> Exception:
        text = str(error)
        if "locked" in text:
            return TimeoutError(f"{self.name} was in use by another process for {WAIT_SECONDS:.0f} s; try again")
        if "not a database" in text or "malformed" in text or "no such table" in text:
            return ValueError(f"{self.name} must be a file that nl3d gallery add wrote, but cannot be read: {text}")
        if "UNIQUE constraint failed: tracklets.name" in text:
            return ValueError(f"{self.name} was given these names by another process meanwhile; nothing was added")
        return OSError(f"{self.name} cannot be used: {text}; nothing was changed")


def check_gallery_path(path: str | Path, *, create: bool) -> None:
    """Refuse a path that no gallery can be opened at, before any work is done for it.

    Raises:
        FileNotFoundError: If it does not exist and ``create`` is off, or its folder does not exist.
        IsADirectoryError: If it is a folder.
        ValueError: If it is a device, a pipe or a socket.
    """
    path, name = Path(path), f"gallery {str(path)!r}"
    if path.is_dir():
        raise IsADirectoryError(f"{name} must be a file that nl3d gallery add wrote, got a folder")
    if path.exists():
        if not path.is_file():
            raise ValueError(f"{name} must be a regular file, got a device, a pipe or a socket")
    elif not create:
        raise FileNotFoundError(f"{name} does not exist; nl3d gallery add makes it")
    else:
        check_output(path, overwrite=False)
