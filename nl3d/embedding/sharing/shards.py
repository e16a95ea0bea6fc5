"""Embedding to files by one process or many, on one machine or many, resuming after an interruption."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from nl3d.data.clips.batches import SourceReport
from nl3d.data.frames.names import FrameNames
from nl3d.data.readers.columns import is_parquet
from nl3d.data.readers.manifest import require_manifest_frames
from nl3d.data.readers.table_index import index_table
from nl3d.data.sources import open_source
from nl3d.data.table_source import TableSource
from nl3d.data.tracklet_source import TrackletSource
from nl3d.embedding.embedder import BATCHES_PER_PART, EmbedderOptions, TrackletEmbedder
from nl3d.embedding.embeddings import require_finite
from nl3d.embedding.loading import progress_bar
from nl3d.embedding.network import device_of_rank
from nl3d.embedding.sharing.parts import Part, PartFolder, owners, run_of
from nl3d.embedding.vector_files import FOLDERS, SUFFIXES
from nl3d.files import check_output

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Share(NamedTuple):
    """Which process of how many this is.

    Attributes:
        rank: Its number, from 0.
        world: Processes in all.
        local_rank: Its number on its machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Share:
        """Read ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, which ``torchrun`` and ``accelerate launch`` set.

        Raises:
            ValueError: If these are no numbers, or contradict each other.

        Example:
            >>> Share.from_environment({"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"})
            Share(rank=9, world=16, local_rank=1)
        """
        texts = [environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        if not texts[0] and not texts[1]:
            return cls()
        told = f"got RANK={texts[0]!r}, WORLD_SIZE={texts[1]!r}, LOCAL_RANK={texts[2]!r}"
        if not all(text.isascii() and text.isdigit() for text in (texts[0], texts[1], texts[2] or "0")):
            raise ValueError(f"RANK and WORLD_SIZE must both be whole numbers, as torchrun sets them, {told}")
        share = cls(int(texts[0]), int(texts[1]), int(texts[2] or 0))
        if share.rank >= share.world:
            raise ValueError(f"RANK must be below WORLD_SIZE, {told}")
        return share


class Outcome(NamedTuple):
    """How far a process came.

    Attributes:
        text: How far, in a sentence.
        complete: Whether the output is there.
        joined: Whether this process joined it.
        made: Parts that this process embedded.
        missing: Parts that are not there yet.
        dropped: Tracklets without a readable frame, if this process joined the output.
        unreadable: What was wrong with each frame that this process skipped.
    """

    text: str
    complete: bool = False
    joined: bool = False
    made: int = 0
    missing: tuple[int, ...] = ()
    dropped: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


class Run:
    """Tracklets in parts, a network, and the folder that their vectors go to; whoever embeds them, the same.

    Args:
        source: The tracklets.
        embedder: The network and its options.
        output: What is written.
        labels: More metadata for the output.
        skip_unreadable: As for :func:`embed_to_file`.
        batches_per_part: As for :func:`embed_to_file`.
    """

    def __init__(
        self,
        source: TrackletSource,
        embedder: TrackletEmbedder,
        output: Path,
        *,
        labels: Mapping[str, str] | None,
        skip_unreadable: bool,
        batches_per_part: int,
    ) -> None:
        self.source, self.embedder, self.skip_unreadable = source, embedder, skip_unreadable
        self.parts = embedder.cut(source.lengths, batches_per_part)
        self.metadata = {**embedder.metadata(), "source": str(source.path or ""), "tracks": "", **(labels or {})}
        description = {
            **self.metadata,
            "tracklets": source_digest(source),
            "batch_size": embedder.batch_size,
            "batches_per_part": batches_per_part,
            "amp": str(embedder.amp),
            "device": embedder.device.type,
            "skip_unreadable": skip_unreadable,
            "torch": torch.__version__,
        }
        self.folder = PartFolder(output, description, self.metadata, len(self.parts))

    def frames(self, numbers: Iterable[int]) -> int:
        """Return the frames of some parts."""
        return sum(sum(self.source.lengths[part.start : part.stop]) for part in map(self.parts.__getitem__, numbers))

    def is_finished(self, *, overwrite: bool, shared: bool) -> bool:
        """Whether this run has made the output already; refuse one of another run."""
        if self.folder.is_output() and (shared or not overwrite):
            self.folder.remove()  # left by a process that was killed once it had joined
            return True
        if self.folder.output.exists() and not overwrite:
            raise FileExistsError(f"output {str(self.folder.output)!r} exists already; choose another name")
        return False

    def finish(self, share: Share, made: int) -> Outcome:
        """Join the parts if they are all there and it is for this process to do so."""
        folder, metadata = self.folder, self.metadata
        done = Outcome(f"{folder.output} was joined by another process", complete=True, made=made)
        missing = tuple(folder.missing())
        if missing:
            if folder.is_output():
                folder.remove()  # what this process wrote after the other had joined
                return done
            return Outcome(
                f"{len(missing)} of the {folder.count} parts of {folder.output} are still missing "
                f"({owners(missing, share.world)}); the process that makes the last one joins them. If no process is "
                "running any more, repeat the same command, which resumes from here; on several machines all must see "
                f"{folder.path}",
                made=made,
                missing=missing,
            )
        if not made and share.rank:  # or all processes of a run that was stopped while joining would join
            return Outcome(f"all parts of {folder.output} are there, process 0 joins them")
        try:
            rows, width, dropped = folder.join()
        except FileNotFoundError:
            if folder.is_output():  # by a process that finished in the same moment; the file is the same
                folder.remove()
                return done
            raise
        folder.remove()
        text = (
            f"{folder.output}: {rows} tracklets, {width} numbers each "
            f"({metadata['output']} of {metadata['model']}, weights {metadata['weights']})"
        )
        return Outcome(text, complete=True, joined=True, made=made, dropped=tuple(dropped))


def embed_parts(
    source: TrackletSource, embedder: TrackletEmbedder, parts: list[range], bar: Any, *, skip_unreadable: bool
) -> Iterator[Part]:
    """Embed some parts of a source, in order; see :meth:`nl3d.TrackletEmbedder.averages`.

    Raises:
        ValueError: If a vector is not finite, or a frame does not decode and ``skip_unreadable`` is off.
    """
    report, seen = SourceReport(), 0
    averages = embedder.averages(source, parts, report, bar, skip_unreadable=skip_unreadable)
    for part, (kept, vectors) in zip(parts, averages, strict=True):
        unreadable = [message for _, message in report.unreadable[seen:]]
        seen += len(unreadable)
        made = Part.of(source, part, kept, vectors, unreadable)
        require_finite(made.vectors, made.columns["names"])
        yield made


def embed_to_file(
    source: str | Path | TrackletSource,
    model: nn.Module | str | None,
    output: str | Path,
    *,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    progress: bool | None = None,
    labels: dict[str, str] | None = None,
    share: Share | None = None,
    batches_per_part: int = BATCHES_PER_PART,
    **options: Unpack[EmbedderOptions],
) -> Outcome:
    """Embed the tracklets of a table or of a folder to a file, this process its share of them.

    Tracklets are cut into parts, and part ``n`` is for process ``n % world``. Each finished part is a file in
    the folder ``OUTPUT.parts``; the process that finds all of them there joins them and removes the folder. Memory
    holds one part, a run that was stopped resumes when it is repeated, with any number of processes, and the file does
    not depend on them. Processes do not communicate: they need not start together, and one that dies stops no other. A
    table whose tracklets stand together is read in parts too, each process its own.

    Args:
        source: A table of frames (``.csv``, ``.parquet``; :func:`nl3d.data.read_manifest_tracklets`) or a folder of
            tracklet folders, which all processes see under the same name.
        model: As for :func:`nl3d.embed`.
        output: The file, in a folder that all processes share: ``.safetensors``, ``.npz`` or ``.csv``, or a folder of
            parts, ``.parquet`` or ``.lance``.
        overwrite: Whether a file that exists may be replaced; a folder must be deleted.
        skip_unreadable: Whether a frame that does not decode is replaced by the nearest one of its clip, and counted.
        progress: Whether to show a progress bar; on a terminal, by the first process, if left out.
        labels: More metadata for the result.
        share: Which process of how many this is; as ``torchrun`` or ``accelerate launch`` set it, if left out.
        batches_per_part: Batches of a part, what a process that is killed loses at most.
        options: As for :class:`nl3d.TrackletEmbedder`. With ``device="auto"`` or ``"cuda"`` each process of a machine
            takes the GPU of its number; ``workers`` decode for each process.

    Raises:
        FileExistsError: If the output exists, is not of this very run, and ``overwrite`` is off.
        FileNotFoundError: If the source, a frame, or the output's folder does not exist.
        ValueError: If the source or an option cannot be used, or the parts of another run are in the way.
    """
    share = Share.from_environment() if share is None else share
    inputs = (source.path if isinstance(source, TrackletSource) else source,)
    output = check_embed_output(output, overwrite=overwrite, inputs=inputs)
    source = open_share(source, share, check_files=not skip_unreadable)
    options["device"] = device_of_rank(options.get("device"), share.local_rank)
    run = Run(source, TrackletEmbedder(model, **options), output, labels=labels, skip_unreadable=skip_unreadable,
              batches_per_part=batches_per_part)  # fmt: skip
    if run.is_finished(overwrite=overwrite, shared=share.world > 1):
        return finished(output)
    run.folder.open()
    own = [number for number in run.folder.missing() if number % share.world == share.rank]
    unreadable: list[str] = []
    try:
        if own:
            mine = [run.parts[number] for number in own]
            with progress_bar(run.frames(own), False if progress is None and share.rank else progress) as bar:
                made = embed_parts(source, run.embedder, mine, bar, skip_unreadable=skip_unreadable)
                for number, part in zip(own, made, strict=True):
                    run.folder.write(number, part)
                    unreadable += part.unreadable
    finally:
        if share.world == 1 and len(run.folder.missing()) == len(run.parts):
            run.folder.remove()  # nothing is lost with it
    return run.finish(share, len(own))._replace(unreadable=tuple(unreadable))


def finished(output: Path) -> Outcome:
    """Return the outcome of a run whose output is there."""
    text = f"{output} is there already, made by this very run; delete it to start again"
    return Outcome(text, complete=True)


def check_embed_output(output: str | Path, *, overwrite: bool, inputs: Iterable[str | Path | None] = ()) -> Path:
    """Refuse an output that could not be written. The output of an earlier run is accepted until the run is known.

    Raises:
        FileExistsError: If it exists and ``overwrite`` is off, or is a folder of another kind.
        FileNotFoundError: If its folder does not exist.
        ValueError: If it has another suffix, is no regular file, or is an input.
    """
    output, suffixes = Path(output), tuple(dict.fromkeys((*SUFFIXES, *FOLDERS)))
    if output.suffix.lower() in FOLDERS:
        check_output(output.with_name(f"{output.name}.parts.json"), overwrite=True)  # the folder that it lies in
        if output.exists() and (overwrite or run_of(output) is None):
            raise FileExistsError(f"output {str(output)!r} exists already; delete it, or choose another name")
        return output
    output = check_output(output, overwrite=True, inputs=inputs, suffixes=suffixes)
    if not overwrite and run_of(output) is None:
        check_output(output, overwrite=False)
    return output


def open_share(source: str | Path | TrackletSource, share: Share, *, check_files: bool = True) -> TrackletSource:
    """Index the table or list the folder, and check that this process's share of a table's frames exists.

    Raises:
        FileNotFoundError: If the source or a frame does not exist.
        TypeError: If it is neither a table nor a folder.
        ValueError: If it is a video.
    """
    if isinstance(source, TrackletSource) and source.path:
        return source
    if not isinstance(source, str | Path):
        raise TypeError(f"source must be a table or a folder that all processes see, got {type(source).__name__}")
    path = Path(source).resolve()
    is_table = path.is_file() and (path.suffix.lower() == ".csv" or is_parquet(path))
    index = index_table(path) if is_table else None
    opened = open_source(path, check_files=False) if index is None else TableSource(index)
    assert isinstance(opened, TrackletSource)  # a video has tracks
    if check_files and is_table:
        count = len(opened.lengths)
        mine = range(count * share.rank // share.world, count * (share.rank + 1) // share.world)
        tracklets = (opened.tracklets[row] for row in mine)
        require_manifest_frames(tracklet.frames for tracklet in tracklets if isinstance(tracklet.frames, FrameNames))
    return opened


def source_digest(source: TrackletSource) -> str:
    """Hash the tracklets without reading a frame: a table's bytes, or names, labels and names of frames."""
    if isinstance(source, TableSource):
        return source.index.digest
    digest = hashlib.sha256()
    for tracklet, record in zip(source.tracklets, source.records, strict=True):
        names = getattr(tracklet.frames, "names", None)
        frames = b"\n".join(names.tolist()) if names is not None else os.fsencode("\n".join(map(str, tracklet.frames)))
        folder = getattr(tracklet.frames, "folder", "")
        digest.update(os.fsencode("\n".join(map(str, (*record, folder, len(frames), "")))))
        digest.update(frames)
    return digest.hexdigest()[:16]
