"""Decoding beside the network: worker processes, and the bar that shows how far they came."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from nl3d.data.clips.batches import ClipBatch
from nl3d.data.clips.dataset import forking_workers, worker_errors


def load_batches(dataset: Dataset[ClipBatch], workers: int) -> Generator[ClipBatch, None, None]:
    """Yield a data set's batches in order, two per worker ahead of their reader; end the workers when closed."""
    generator = torch.Generator()  # the loader draws a seed, which must not come from the caller's generator
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=None, num_workers=workers, collate_fn=_unchanged, generator=generator
    )
    with forking_workers():
        batches = iter(loader)
    try:
        while True:
            with worker_errors():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
    finally:
        getattr(batches, "_shutdown_workers", lambda: None)()  # at once, not when the traceback is forgotten


def _unchanged(batch: Any) -> Any:
    return batch


def spare_cores() -> int:
    """Return the cores that are left for each process of this machine beside the one it runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(cores // max(int(processes) if processes.isdecimal() else 1, 1) - 1, 0)


def progress_bar(total: int | None, progress: bool | None) -> Any:
    """Make a progress bar of frames; shown on a terminal if ``progress`` is None."""
    from huggingface_hub.utils import tqdm

    shown = sys.stderr.isatty() if progress is None else progress
    return tqdm(total=total, unit=" frames", desc="embed", disable=not shown, name="nl3d.embed")
