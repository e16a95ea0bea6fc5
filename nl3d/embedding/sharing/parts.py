"""Embeddings in the making: a folder of parts beside the output, which any process of a run may fill and go on with."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nl3d.data.clips.batches import Record
from nl3d.embedding.embed import columns, make_notes
from nl3d.embedding.vector_files import CONTENT, pack_columns
from nl3d.files import replacing, write_safetensors, write_safetensors_rows


class OtherRunError(ValueError):
    """Parts of another run are in the way."""


class PartFolder:
    """The finished parts of one run, in the folder ``OUTPUT.parts``.

    A run is what its description says: tracklets, network, options. Files carry a digest of it in their names, so that
    no part of another run is ever taken for one of this. Every process of the run may write at the same time, on any
    machine that sees the folder; each file is there whole or not at all.

    Args:
        output: The file that the parts will become.
        description: All that the vectors hang on.
        count: Parts of the whole.
    """

    def __init__(self, output: Path, description: Mapping[str, Any], count: int) -> None:
        self.output, self.description, self.count = output, dict(description), count
        self.path = part_folder(output)
        self.digest = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()[:16]

    def open(self) -> None:
        """Make the folder, and refuse one with parts of another run.

        Raises:
            OtherRunError: If there are parts of another run.
        """
        self.path.mkdir(exist_ok=True)
        for other in sorted(self.path.glob("*.json")):
            if other.stem == self.digest:
                continue
            parts = list(self.path.glob(f"{other.stem}-*.safetensors"))
            if parts:
                raise OtherRunError(
                    f"output {str(self.output)!r} has {len(parts)} parts of another run in {str(self.path)!r}, "
                    f"which differs in {_differences(other, self.description)}; repeat its command to finish it, "
                    "or delete the folder to begin anew"
                )
            other.unlink(missing_ok=True)  # it came to nothing
        self._describe()

    def missing(self) -> list[int]:
        """List the parts that are not there."""
        with suppress(FileNotFoundError):
            there = {path.name for path in self.path.iterdir()}
            return [number for number in range(self.count) if self.part(number).name not in there]
        return list(range(self.count))

    def part(self, number: int) -> Path:
        """Give the file of a part."""
        return self.path / f"{self.digest}-{number:07d}.safetensors"

    def write(self, number: int, rows: Sequence[int], vectors: Tensor, unreadable: int) -> None:
        """Write a part: its tracklets that have a vector, their vectors, and how many frames were skipped."""
        tensors = {"rows": torch.tensor(rows, dtype=torch.int64), "vectors": vectors}
        try:
            if not self.path.is_dir():  # removed by a process that came to nothing, or that has joined the output
                self.path.mkdir(exist_ok=True)
                self._describe()
            write_safetensors(self.part(number), tensors, {"unreadable": str(unreadable)})
        except FileNotFoundError:  # the same, in the middle of writing
            if not self.is_output():
                raise

    def join(
        self, records: Sequence[Record], lengths: Sequence[int], metadata: Mapping[str, str]
    ) -> tuple[int, int, list[str]]:
        """Make the parts the output, holding one at a time; give its rows, its columns, and who was left out of it.

        Args:
            records: What is known of each tracklet.
            lengths: Frames of each tracklet.
            metadata: That of the output; notes are added.

        Raises:
            FileNotFoundError: If a part has gone.
            ValueError: If a part cannot be read, or no tracklet has a vector.
        """
        rows: list[int] = []
        width = unreadable = 0
        for number in range(self.count):
            with self._read(number) as file:
                rows += file.get_tensor("rows").tolist()
                width = max(width, file.get_slice("vectors").get_shape()[1])
                unreadable += int(file.metadata()["unreadable"])
        if not rows:
            self.remove()  # or these parts, which hold nothing, would stop every later run
            raise ValueError(f"tracklets must have a readable frame, got none in {unreadable} frames")
        notes = make_notes(records, rows, unreadable=unreadable)
        found = columns([records[row] for row in rows])
        found["frame_ranges"] = torch.tensor([(1, lengths[row]) for row in rows], dtype=torch.int64)
        header = {**metadata, "notes": json.dumps(notes), "run": self.digest, "content": CONTENT}
        shape = len(rows), width
        whole = (
            self.path / f"{self.digest}.joined"
        )  # beside the parts, so that a killed joining leaves nothing elsewhere
        write_safetensors_rows(whole, "embeddings", shape, self._vectors(), pack_columns(found), header)
        whole.replace(self.output)
        return *shape, notes["dropped_tracks"]

    def remove(self) -> None:
        """Delete all that this run has put into the folder, and the folder if nothing else is in it."""
        for pattern in (f"{self.digest}*", f".{self.digest}*"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def is_output(self) -> bool:
        """Whether the output is there, and is what this run makes."""
        return run_of(self.output) == self.digest

    def _describe(self) -> None:
        path = self.path / f"{self.digest}.json"
        if not path.exists():
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps(self.description, indent=1), encoding="utf-8")

    def _vectors(self) -> Iterator[Tensor]:
        for number in range(self.count):
            with self._read(number) as file:
                vectors = file.get_tensor("vectors")
            if vectors.numel():
                yield vectors

    def _read(self, number: int) -> Any:
        path = self.part(number)
        if not path.exists():
            raise FileNotFoundError(f"part {str(path)!r} does not exist any more")
        try:
            return safe_open(path, framework="pt")
        except SafetensorError as error:
            raise ValueError(
                f"part {str(path)!r} cannot be read: {error}; delete it and repeat the command, which makes it again"
            ) from error


def part_folder(output: Path) -> Path:
    """Give the folder of an output's parts."""
    return output.with_name(f"{output.name}.parts")


def run_of(output: Path) -> str | None:
    """Read from an embeddings file which run made it; None where there is no such file, or it does not say."""
    if not output.is_file():
        return None
    try:
        with safe_open(output, framework="pt") as file:
            return dict(file.metadata() or {}).get("run")
    except SafetensorError:
        return None


def source_digest(tracklets: Sequence[Any], records: Sequence[Record]) -> str:
    """Hash what tracklets are, as far as no frame must be read for it: their names, labels and frames' names."""
    digest = hashlib.sha256()
    for tracklet, record in zip(tracklets, records, strict=True):
        names = getattr(tracklet.frames, "names", None)
        frames = b"\n".join(names.tolist()) if names is not None else os.fsencode("\n".join(map(str, tracklet.frames)))
        folder = getattr(tracklet.frames, "folder", "")
        digest.update(os.fsencode("\n".join(map(str, (*record, folder, len(frames), "")))))
        digest.update(frames)
    return digest.hexdigest()[:16]


def owners(missing: Sequence[int], world: int) -> str:
    """Say whose parts are missing.

    Example:
        >>> owners([1, 3, 5, 6], world=4)
        '2 of rank 1, 1 of rank 2, 1 of rank 3'
    """
    shares = Counter(number % world for number in missing)
    told = [f"{count} of rank {rank}" for rank, count in sorted(shares.items())]
    return ", ".join(told[:8]) + (f" and of {len(told) - 8} more ranks" if len(told) > 8 else "")


def _differences(other: Path, description: Mapping[str, Any]) -> str:
    try:
        before = json.loads(other.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "ways it does not say"
    keys = [key for key in {**before, **description} if before.get(key) != description.get(key)]
    return ", ".join(keys) or "nothing"
