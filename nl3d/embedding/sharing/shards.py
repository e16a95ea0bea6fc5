"""Embedding to a file by one process or many, on one machine or many, from where a killed run stopped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from nl3d.data.clips.batches import SourceReport
from nl3d.data.frames.names import FrameNames
from nl3d.data.readers.manifest import require_manifest_frames
from nl3d.data.sources import open_source
from nl3d.data.tracklet_source import TrackletSource
from nl3d.embedding.embedder import BATCHES_PER_PART, OutputLayer, TrackletEmbedder
from nl3d.embedding.embeddings import require_finite
from nl3d.embedding.loading import progress_bar
from nl3d.embedding.network import device_of_rank
from nl3d.embedding.sharing.parts import PartFolder, owners, run_of, source_digest
from nl3d.files import check_output


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
        """Read what ``torchrun`` and ``accelerate launch`` tell each process: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``.

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


def embed_to_file(
    source: str | Path | TrackletSource,
    model: nn.Module,
    output: str | Path,
    *,
    overwrite: bool = False,
    num_frames: int | None = None,
    frame_step: int | None = None,
    size: tuple[int, int] | None = None,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    amp: bool = False,
    output_layer: OutputLayer = "auto",
    workers: int | None = None,
    skip_unreadable: bool = False,
    progress: bool | None = None,
    labels: dict[str, str] | None = None,
    share: Share | None = None,
    batches_per_part: int = BATCHES_PER_PART,
) -> Outcome:
    """Embed the tracklets of a table or of a folder into a file, this process its share of them.

    Tracklets are cut into parts, and part ``n`` is for process ``n % world``. Each finished part is a file in
    the folder ``OUTPUT.parts``; the process that finds all of them there joins them and removes the folder. So memory
    holds one part, a run that was stopped goes on when it is repeated, with any number of processes, and the file is
    the same whoever made it. Processes do not speak to each other: they need not start together, and one that dies
    stops no other.

    Args:
        source: A table of frames (``.csv``, :func:`nl3d.data.read_manifest_tracklets`) or a folder of tracklet folders,
            which all processes see under the same name.
        model: As for :func:`nl3d.embed`, like the options that are not listed here.
        output: The file, in a folder that all processes share.
        overwrite: Whether a file that is there may be replaced.
        num_frames: Frames of a clip.
        frame_step: Frames from one frame of a clip to the next.
        size: Height and width of a frame, in pixels.
        batch_size: Clips that the network takes at once.
        device: Where to run; of ``"auto"`` and ``"cuda"`` each process of a machine takes the GPU of its number.
        amp: Whether to run under autocast.
        output_layer: Which output of the network is the vector of a clip.
        workers: Processes that decode, for each process that embeds.
        skip_unreadable: Whether a frame that does not decode is replaced by the nearest one of its clip, and counted.
        progress: Whether to show a progress bar; on a terminal, by the first process, if left out.
        labels: More metadata for the result.
        share: Which process of how many this is; what ``torchrun`` or ``accelerate launch`` said, if left out.
        batches_per_part: Batches of a part, what a process that is killed loses at most.

    Raises:
        FileExistsError: If the output is there, is not of this very run, and ``overwrite`` is off.
        FileNotFoundError: If the source, a frame, or the output's folder does not exist.
        ValueError: If the source or an option cannot be used, or the parts of another run are in the way.
    """
    share = Share.from_environment() if share is None else share
    inputs = (source.path if isinstance(source, TrackletSource) else source,)
    output = check_embed_output(output, overwrite=overwrite, inputs=inputs)
    source = open_share(source, share, check_files=not skip_unreadable)
    embedder = TrackletEmbedder(
        model,
        num_frames=num_frames,
        frame_step=frame_step,
        size=size,
        batch_size=batch_size,
        device=device_of_rank(device, share.local_rank),
        amp=amp,
        output_layer=output_layer,
        workers=workers,
    )
    lengths = source.lengths
    parts = embedder.cut(lengths, batches_per_part)
    metadata = {**embedder.metadata(), "source": str(source.path or ""), "tracks": "", **(labels or {})}
    description = {
        **metadata,
        "tracklets": source_digest(source.tracklets, source.records),
        "batch_size": batch_size,
        "batches_per_part": batches_per_part,
        "amp": amp,
        "device": embedder.device.type,
        "skip_unreadable": skip_unreadable,
        "torch": torch.__version__,
    }
    folder = PartFolder(output, description, len(parts))
    if folder.is_output() and (share.world > 1 or not overwrite):
        folder.remove()  # what is left if a process was killed once it had joined
        return Outcome(f"{output} is there already, made by this very run; delete it to begin anew", complete=True)
    if output.exists() and not overwrite:
        check_output(output, overwrite=False)  # refuses it
    folder.open()
    own = [number for number in folder.missing() if number % share.world == share.rank]
    report = SourceReport()
    try:
        if own:
            frames = sum(lengths[row] for number in own for row in parts[number])
            with progress_bar(frames, False if progress is None and share.rank else progress) as bar:
                mine = [parts[number] for number in own]
                vectors = embedder.averages(source, mine, report, bar, skip_unreadable=skip_unreadable)
                for number, (kept, block) in zip(own, vectors, strict=True):
                    require_finite(block, [source.records[row].name for row in kept])
                    skipped = sum(row in parts[number] for row, _ in tuple(report.unreadable))
                    folder.write(number, kept, block, skipped)
    finally:
        if share.world == 1 and len(folder.missing()) == len(parts):
            folder.remove()  # nothing is lost with it
    outcome = _finish(folder, source, metadata, share, len(own))
    return outcome._replace(unreadable=tuple(message for _, message in report.unreadable))


def check_embed_output(output: str | Path, *, overwrite: bool, inputs: Iterable[str | Path | None] = ()) -> Path:
    """Refuse an output that could not be written. The output of an earlier run is accepted until the run is known.

    Raises:
        FileExistsError: If it exists and ``overwrite`` is off.
        FileNotFoundError: If its folder does not exist.
        ValueError: If it does not end in ``.safetensors``, is no regular file, or is an input.
    """
    output = check_output(output, overwrite=True, inputs=inputs, suffixes=(".safetensors",))
    if not overwrite and run_of(output) is None:
        check_output(output, overwrite=False)
    return output


def open_share(source: str | Path | TrackletSource, share: Share, *, check_files: bool = True) -> TrackletSource:
    """Read the table or list the folder, and look whether this process's share of a table's frames is there.

    Raises:
        FileNotFoundError: If the source or a frame does not exist.
        TypeError: If it is neither a table nor a folder.
        ValueError: If it is a video.
    """
    if isinstance(source, TrackletSource) and source.path:
        return source
    if not isinstance(source, str | Path):
        raise TypeError(f"source must be a table or a folder that all processes see, got {type(source).__name__}")
    opened = open_source(Path(source).resolve(), check_files=False)
    assert isinstance(opened, TrackletSource)  # a video has tracks
    if check_files and Path(source).suffix.lower() == ".csv":
        count = len(opened.tracklets)
        mine = opened.tracklets[count * share.rank // share.world : count * (share.rank + 1) // share.world]
        require_manifest_frames(tracklet.frames for tracklet in mine if isinstance(tracklet.frames, FrameNames))
    return opened


def _finish(
    folder: PartFolder, source: TrackletSource, metadata: Mapping[str, str], share: Share, made: int
) -> Outcome:
    """Join the parts if they are all there and it is on this process to do so."""
    done = Outcome(f"{folder.output} was joined by another process", complete=True, made=made)
    missing = tuple(folder.missing())
    if missing:
        if folder.is_output():
            folder.remove()  # what this process wrote after the other had joined
            return done
        return Outcome(
            f"{len(missing)} of the {folder.count} parts of {folder.output} are still missing "
            f"({owners(missing, share.world)}); the process that makes the last one joins them. If no process runs any "
            f"more, repeat the same command, which goes on from here; on several machines all must see {folder.path}",
            made=made,
            missing=missing,
        )
    if not made and share.rank:  # or all processes of a run that was stopped while joining would join
        return Outcome(f"all parts of {folder.output} are there, process 0 joins them")
    try:
        rows, width, dropped = folder.join(source.records, source.lengths, metadata)
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
