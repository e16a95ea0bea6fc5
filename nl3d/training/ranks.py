"""The processes of a run: one group of the size that the launcher announced, every rank watched by the others."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

from nl3d.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

_log = logging.getLogger("nl3d.training")

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Join the group of processes that ``torchrun``, ``accelerate launch`` or MPI started, on GPUs or CPUs.

    Raises:
        ModuleNotFoundError: If accelerate is not installed.
        ValueError: If the launcher announced another number of processes than the group has.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ModuleNotFoundError(
            "training runs on accelerate, which is not installed; install nl3d with the extra 'train'"
        ) from error
    started = processes_started(os.environ)
    # On CPUs accelerate forms a group only when it is told to use the CPU.
    accelerator = Accelerator(
        mixed_precision=config.precision, cpu=started > 1 and not torch.accelerator.is_available()
    )
    if started != accelerator.num_processes:
        raise ValueError(
            f"processes must form one group, but {started} were started and the group has {accelerator.num_processes}; "
            "start them with torchrun --nproc-per-node"
        )
    return accelerator


def processes_started(environ: Mapping[str, str]) -> int:
    """Return the number of processes that the launcher's environment variables announce, 1 without a launcher.

    On CPUs without MPI, ``accelerate launch --cpu --num_processes N`` starts one process (accelerate 1.15). This
    process then trains alone, and the log says so.
    """
    for name in _SIZES:
        if name in environ:
            if not environ[name].isdecimal() or int(environ[name]) < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, got {environ[name]!r}")
            return int(environ[name])
    if environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") and "MASTER_ADDR" in environ:
        if environ["MASTER_ADDR"] not in ("127.0.0.1", "localhost"):
            raise ValueError("num_machines must be 1 for accelerate launch --cpu; start each machine with torchrun")
        _log.warning(
            "accelerate launch --cpu started one process, which trains alone; use torchrun --nproc-per-node N for more"
        )
    return 1


class Heartbeat:
    """Every rank counts in a shared store, and every rank watches the counts of the others.

    Unlike a time limit on collective operations, this allows long steps: a rank that computes still counts.

    Args:
        store: Store that rank 0 serves.
        rank: Rank of this process.
        world_size: Number of processes.
        patience: Seconds without a count after which a rank is lost.
    """

    def __init__(self, store: distributed.Store, rank: int, world_size: int, patience: float) -> None:
        self.store, self.rank, self.patience = store, rank, patience
        self.counted = [time.monotonic()] * world_size  # when each rank's count last rose
        self.over = threading.Event()

    def start(self) -> None:
        """Count and watch until :attr:`over` is set; a lost rank ends this process with exit status 1."""
        for work in (self._count, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def lost(self) -> str:
        """Return the sentence that names the lost ranks, empty while all count."""
        now = time.monotonic()
        silent = [rank for rank, counted in enumerate(self.counted) if now - counted > self.patience]
        if not silent:
            return ""
        if self.rank in silent:  # not even this rank's count can be read
            silent = [0]
        names = ", ".join(map(str, silent))
        return (
            f"every rank must answer within {self.patience:g} s, but rank {names} did not: it died or was stopped; "
            "the same command resumes from the last checkpoint"
        )

    def _count(self) -> None:
        counts: dict[int, int] = {}
        try:
            while not self.over.wait(self.patience / 10):
                self.store.add(f"rank {self.rank}", 1)
                for rank in range(len(self.counted)):
                    count = self.store.add(f"rank {rank}", 0)
                    if counts.get(rank) != count:
                        counts[rank], self.counted[rank] = count, time.monotonic()
        except RuntimeError:  # rank 0 is gone, and its store with it
            return

    def _watch(self) -> None:
        while not self.over.wait(self.patience / 10):
            if lost := self.lost():
                # The main thread waits in a collective operation, which nothing interrupts.
                sys.stderr.write(f"nl3d: {lost}\n")
                sys.stderr.flush()
                os._exit(1)


@contextmanager
def watched_ranks(accelerator: Accelerator, patience: float) -> Iterator[None]:
    """Watch the other ranks of a run; without other ranks, do nothing."""
    if accelerator.num_processes == 1:
        yield
        return
    from accelerate.utils import broadcast_object_list

    host, first = os.environ.get("MASTER_ADDR", "127.0.0.1"), accelerator.process_index == 0
    store = distributed.TCPStore(host, 0, is_master=True, wait_for_workers=False) if first else None
    (port,) = broadcast_object_list([store.port if store else None])
    if store is None:
        store = distributed.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=patience))
    heartbeat = Heartbeat(store, accelerator.process_index, accelerator.num_processes, patience)
    heartbeat.start()
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "peer" in str(error):  # as gloo and NCCL name the other side
            heartbeat.over.wait(1.5 * patience)  # until the watch ends this process and names the lost rank
        raise
    finally:
        heartbeat.over.set()
