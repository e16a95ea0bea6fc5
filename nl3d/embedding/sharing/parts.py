"""Embeddings in the making: a folder of parts beside the output, which any process of a run may fill and resume."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nl3d.data.clips.batches import track_numbers
from nl3d.data.tracklet_source import TrackletSource
from nl3d.embedding.embeddings import complete_labels
from nl3d.embedding.table_files import add_notes, read_parts, write_lance
from nl3d.embedding.vector_files import FOLDERS, StoredVectors, read_columns, read_metadata, write_columns
from nl3d.files import replacing


class OtherRunError(ValueError):
    """Parts of another run are in the way."""


class Part(NamedTuple):
    """Tracklets of a part that have a vector, and what became of the others.

    Attributes:
        vectors: ``(N, D)`` float32.
        columns: Names, labels and ``frame_ranges`` of these tracklets.
        dropped: Names of tracklets without a readable frame.
        unreadable: What was wrong with each frame that was skipped.
    """

    vectors: Tensor
    columns: dict[str, Any]
    dropped: list[str]
    unreadable: list[str]

    @classmethod
    def of(
        cls, source: TrackletSource, rows: range, kept: Sequence[int], vectors: Tensor, unreadable: list[str]
    ) -> Part:
        """Describe the vectors ``kept`` of some tracklets of a source."""
        records = {row: source.record(row) for row in rows}
        columns = {
            "names": [records[row].name for row in kept],
            "people": [records[row].person for row in kept],
            "cameras": [records[row].camera for row in kept],
            "frame_ranges": torch.tensor([(1, source.lengths[row]) for row in kept], dtype=torch.int64).view(-1, 2),
        }
        chosen = set(kept)
        dropped = [record.name for row, record in records.items() if row not in chosen]
        return cls(vectors if kept else torch.zeros(0, 1), columns, dropped, unreadable)


class PartFolder:
    """The finished parts of one run, in the folder ``OUTPUT.parts``.

    A run is identified by its description: tracklets, network, options. File names carry its digest, so parts of two
    runs are never mixed. Every process of the run may write at the same time, on any machine that sees the folder; each
    file is there whole or not at all. Parts are small files of embeddings, in Parquet if the output is a folder.

    Args:
        output: The file, or for ``.parquet`` and ``.lance`` the folder, that the parts become.
        description: Everything the vectors depend on.
        metadata: Metadata of the output; notes and the digest are added.
        count: Number of parts.
    """

    def __init__(self, output: Path, description: Mapping[str, Any], metadata: Mapping[str, str], count: int) -> None:
        self.output, self.description, self.count = output, dict(description), count
        self.path = part_folder(output)
        self.digest = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()[:16]
        self.metadata = {**metadata, "run": self.digest}
        self.suffix = ".parquet" if output.suffix.lower() in FOLDERS else ".safetensors"

    def open(self) -> None:
        """Make the folder, and refuse one with parts of another run.

        Raises:
            OtherRunError: If there are parts of another run.
        """
        self.path.mkdir(exist_ok=True)
        for other in sorted(self.path.glob("*.json")):
            if other.stem == self.digest:
                continue
            parts = list(self.path.glob(f"{other.stem}-*"))
            if parts:
                raise OtherRunError(
                    f"output {str(self.output)!r} has {len(parts)} parts of another run in {str(self.path)!r}, "
                    f"which differs in {_differences(other, self.description)}; repeat its command to finish it, "
                    "or delete the folder to start again"
                )
            other.unlink(missing_ok=True)  # it wrote no part
        self._describe()

    def missing(self) -> list[int]:
        """List the parts that are not there."""
        with suppress(FileNotFoundError):
            there = {path.name for path in self.path.iterdir()}
            return [number for number in range(self.count) if self.part(number).name not in there]
        return list(range(self.count))

    def part(self, number: int) -> Path:
        """Return the file of a part."""
        return self.path / f"{self.digest}-{number:07d}{self.suffix}"

    def write(self, number: int, part: Part) -> None:
        """Write a part."""
        notes = {"clipped_boxes": 0, "dropped_boxes": 0, "dropped_tracks": part.dropped,
                 "unreadable_frames": len(part.unreadable)}  # fmt: skip
        metadata = {**self.metadata, "notes": json.dumps(notes)}
        vectors = (part.vectors.shape[0], part.vectors.shape[1]), torch.float32
        try:
            if not self.path.is_dir():  # removed by a process that found nothing, or that has joined the output
                self.path.mkdir(exist_ok=True)
                self._describe()
            write_columns(self.part(number), vectors, [(0, part.vectors)], part.columns, metadata)
        except FileNotFoundError:  # the same, in the middle of writing
            if not self.is_output():
                raise

    def join(self) -> tuple[int, int, list[str]]:
        """Make the parts the output; memory holds names, labels and one part.

        Returns:
            Rows and columns of the output, and the names of the tracklets without a vector.

        Raises:
            FileNotFoundError: If a part is gone.
            ValueError: If a part cannot be read, or no tracklet has a vector.
        """
        joined: dict[str, list[Any]] = {"names": [], "people": [], "cameras": []}
        ranges, width, notes = [torch.empty(0, 2, dtype=torch.int64)], 0, []
        for number in range(self.count):
            part = self._read(number)
            notes.append(json.loads(part["metadata"]["notes"]))
            if rows := part["embeddings"].shape[0]:
                width = part["embeddings"].shape[1]
                joined["names"] += part["names"]
                for name in ("people", "cameras"):
                    joined[name] += part.get(name) or [None] * rows
                ranges.append(part["frame_ranges"])
        total = add_notes(notes)
        if not joined["names"]:
            self.remove()  # empty parts would stop every later run
            frames = total["unreadable_frames"]
            raise ValueError(f"tracklets must have a readable frame, got none in {frames} frames")
        self._become_output(joined, torch.cat(ranges), width, {**self.metadata, "notes": json.dumps(total)})
        return len(joined["names"]), width, total["dropped_tracks"]

    def _become_output(
        self, joined: Mapping[str, list[Any]], ranges: Tensor, width: int, metadata: Mapping[str, str]
    ) -> None:
        suffix = self.output.suffix.lower()
        if suffix == ".parquet":
            for path in self.path.iterdir():
                if not path.name.startswith(f"{self.digest}-"):
                    path.unlink()
            self.path.rename(self.output)
            return
        # beside the parts, so that a killed process leaves nothing elsewhere
        whole = self.path / f"{self.digest}.joined{suffix}"
        if suffix == ".lance":
            write_lance(whole, read_parts(map(self.part, range(self.count)), metadata))
        else:
            people, pids = complete_labels(joined["people"], None)
            cameras, camids = complete_labels(joined["cameras"], None)
            columns = {
                "names": joined["names"], "people": people, "cameras": cameras, "pids": pids, "camids": camids,
                "track_ids": torch.tensor(track_numbers(joined["names"])), "frame_ranges": ranges,
            }  # fmt: skip
            shape = len(joined["names"]), width
            write_columns(whole, (shape, torch.float32), self._vectors(), columns, metadata)
        whole.replace(self.output)

    def remove(self) -> None:
        """Delete everything of this run in the folder, and the folder if nothing else is in it."""
        for pattern in (f"{self.digest}*", f".{self.digest}*"):
            for path in self.path.glob(pattern):
                if not path.is_dir():
                    path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def is_output(self) -> bool:
        """Whether the output is there, and is that of this run."""
        return run_of(self.output) == self.digest

    def _describe(self) -> None:
        path = self.path / f"{self.digest}.json"
        if not path.exists():
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps(self.description, indent=1), encoding="utf-8")

    def _vectors(self) -> Iterator[tuple[int, Tensor]]:
        start = 0
        for number in range(self.count):
            vectors = self._read(number)["embeddings"]
            if count := vectors.shape[0]:
                yield start, vectors.read(range(count)) if isinstance(vectors, StoredVectors) else vectors
                start += count

    def _read(self, number: int) -> dict[str, Any]:
        path = self.part(number)
        if not path.exists():
            raise FileNotFoundError(f"part {str(path)!r} does not exist any more")
        try:
            return read_columns(path)
        except ValueError as error:
            raise ValueError(
                f"part {str(path)!r} cannot be read: {error}; delete it and repeat the command, which makes it again"
            ) from error


def part_folder(output: Path) -> Path:
    """Return the folder of an output's parts."""
    return output.with_name(f"{output.name}.parts")


def run_of(output: Path) -> str | None:
    """Read from embeddings which run made them; None if there are none, or they do not say."""
    return read_metadata(output).get("run")


def owners(missing: Sequence[int], world: int) -> str:
    """Name the ranks whose parts are missing.

    Example:
        >>> owners([1, 3, 5, 6], world=4)
        '2 of rank 1, 1 of rank 2, 1 of rank 3'
    """
    shares = Counter(number % world for number in missing)
    named = [f"{count} of rank {rank}" for rank, count in sorted(shares.items())]
    return ", ".join(named[:8]) + (f" and of {len(named) - 8} more ranks" if len(named) > 8 else "")


def _differences(other: Path, description: Mapping[str, Any]) -> str:
    try:
        before = json.loads(other.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "ways it does not say"
    keys = [key for key in {**before, **description} if before.get(key) != description.get(key)]
    return ", ".join(keys) or "nothing"
