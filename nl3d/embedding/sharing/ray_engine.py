"""Embedding on a Ray cluster: one actor per GPU or core, each taking the next part when it is free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from nl3d.data.tracklet_source import TrackletSource
from nl3d.embedding.embedder import BATCHES_PER_PART, EmbedderOptions, TrackletEmbedder
from nl3d.embedding.loading import progress_bar
from nl3d.embedding.network import load_network
from nl3d.embedding.sharing.parts import Part
from nl3d.embedding.sharing.shards import (
    Outcome,
    Run,
    Share,
    check_embed_output,
    embed_parts,
    finished,
    open_share,
)  # fmt: skip

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PartEmbedder:
    """What an actor runs: a part's tracklets become their vectors. Errors are returned, since Ray would repeat them."""

    def __init__(
        self, model: nn.Module, options: EmbedderOptions, *, skip_unreadable: bool, threads: int | None
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.embedder, self.skip_unreadable = TrackletEmbedder(model, **options), skip_unreadable

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        made = np.empty(len(batch["part"]), dtype=object)  # Ray sends it as it is
        for place, source in enumerate(batch["source"]):
            made[place] = self._embed(source)
        return {"part": batch["part"], "made": made}

    def _embed(self, source: TrackletSource) -> Part | Exception:
        parts = [range(len(source.lengths))]
        try:
            (part,) = embed_parts(
                source, self.embedder, parts, progress_bar(0, False), skip_unreadable=self.skip_unreadable
            )
        except (OSError, TypeError, ValueError) as error:
            return error
        return part


def embed_on_ray(
    source: str | Path | TrackletSource,
    model: nn.Module | str | None,
    output: str | Path,
    *,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    progress: bool | None = None,
    labels: dict[str, str] | None = None,
    actors: int | None = None,
    batches_per_part: int = BATCHES_PER_PART,
    **options: Unpack[EmbedderOptions],
) -> Outcome:
    """Embed the tracklets of a table or of a folder on the Ray cluster that this process is connected to.

    The driver finds the tracklets and writes the parts, in the folder ``OUTPUT.parts``; actors read and decode the
    frames, so every machine must see these under the same names. A part that was with an actor or a machine that died
    is embedded again, and a repeated call makes the parts that are missing. Without a cluster (``RAY_ADDRESS``, or one
    that runs on this machine), Ray starts on the cores and GPUs of this machine.

    Args:
        source: As for :func:`nl3d.embed_to_file`, like the arguments that are not listed here.
        model: As for :func:`nl3d.embed`.
        output: As for :func:`nl3d.embed_to_file`; ``.parquet`` and ``.lance`` are never held in memory.
        overwrite: Whether a file that exists may be replaced; a folder must be deleted.
        skip_unreadable: Whether a frame that does not decode is replaced by the nearest one of its clip, and counted.
        progress: Whether to show a progress bar; on a terminal, if left out.
        labels: More metadata for the result.
        actors: How many embed at once; one per GPU of the cluster, or per core if it has none, if left out.
        batches_per_part: Batches of a part, what an actor that is killed loses at most.
        options: As for :class:`nl3d.TrackletEmbedder`. ``device`` is ``"cuda"`` or ``"cpu"`` for every actor; left out,
            GPUs are used if the cluster has any. ``workers`` decode beside each actor on a GPU: its share of the cores.

    Raises:
        ChildProcessError: If Ray gives up; finished parts are kept.
        FileExistsError: If the output exists, is not of this very run, and ``overwrite`` is off.
        FileNotFoundError: If the source, a frame, or the output's folder does not exist.
        ModuleNotFoundError: If Ray is not installed.
        ValueError: If the source or an option cannot be used, or the parts of another run are in the way.
    """
    if actors is not None and actors < 1:
        raise ValueError(f"actors must be at least 1, got {actors}")
    ray = _import_ray()
    opened = source.path if isinstance(source, TrackletSource) else source
    output = check_embed_output(output, overwrite=overwrite, inputs=(opened,))
    source = open_share(source, Share(), check_files=not skip_unreadable)
    network = load_network(model)
    started = not ray.is_initialized()
    if started:
        ray.init(logging_level="error", log_to_driver=False)
    try:
        resources = ray.cluster_resources()
        gpus, cores = (int(resources.get(name, 0)) for name in ("GPU", "CPU"))
        device = str(options.get("device") or "auto").partition(":")[0]
        if device not in ("auto", "cuda", "cpu") or (device == "cuda" and not gpus):
            raise ValueError(
                f"device must be auto, cpu, or cuda on a cluster with GPUs, got {device!r} with {gpus} GPUs"
            )
        gpus = 0 if device == "cpu" else gpus
        count = actors or max(gpus or cores, 1)
        each = max(cores // count, 1) if gpus else 1
        workers = options.get("workers")
        options["workers"] = (each - 1 if gpus else 0) if workers is None else workers
        options["device"] = "cpu"
        embedder = TrackletEmbedder(network, **options)
        embedder.device = torch.device("cuda" if gpus else "cpu")  # of the actors: this process embeds nothing
        options["device"] = embedder.device.type
        run = Run(source, embedder, output, labels=labels, skip_unreadable=skip_unreadable,
                  batches_per_part=batches_per_part)  # fmt: skip
        if run.is_finished(overwrite=overwrite, shared=False):
            return finished(output)
        run.folder.open()
        missing, unreadable = run.folder.missing(), []
        if missing:
            items = [{"part": part, "source": source.part(run.parts[part])} for part in missing]
            made = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                PartEmbedder,
                fn_constructor_args=(network, options),
                fn_constructor_kwargs={"skip_unreadable": skip_unreadable, "threads": None if gpus else 1},
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
                batch_size=1,
                num_cpus=each,
                num_gpus=1 if gpus else 0,
            )
            unreadable = _write(run, made, missing, progress)
        return run.finish(Share(), len(missing))._replace(unreadable=tuple(unreadable))
    finally:
        if started:
            ray.shutdown()


def _write(run: Run, made: Any, missing: list[int], progress: bool | None) -> list[str]:
    """Write each part as it arrives; return what was wrong with each frame that was skipped."""
    from ray.exceptions import RayError

    unreadable: list[str] = []
    try:
        with progress_bar(run.frames(missing), progress) as bar:
            for row in made.iter_rows():
                part = row["made"]
                if isinstance(part, Exception):
                    raise part
                run.folder.write(int(row["part"]), part)
                unreadable += part.unreadable
                bar.update(run.frames([int(row["part"])]))
    except RayError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ChildProcessError(f"Ray could not finish {run.folder.output}: {reason}") from error
    finally:
        if len(run.folder.missing()) == len(run.parts):
            run.folder.remove()  # nothing is lost with it
    return unreadable


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it reports to its makers
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise ModuleNotFoundError("engine 'ray' needs Ray; install it with: pip install nl3d[ray]") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # there is one already
    return ray
