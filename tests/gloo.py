"""Two real gloo processes on this machine."""

from __future__ import annotations

import datetime
import os
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(scenario):
    """Run ``scenario(rank)`` in two processes of one group; what fails in one fails the test.

    ``scenario`` is a function of a test module, which each process imports anew.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        mp.spawn(_enter, args=(store.port, scenario), nprocs=2)


def _enter(rank, port, scenario):
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    # A rank that waits for the other in vain fails after this time instead of hanging.
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=datetime.timedelta(seconds=90))
    scenario(rank)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # the threads of gloo now and then abort a process that ends the usual way
