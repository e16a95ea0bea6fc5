"""``accelerate launch --cpu --num_processes N`` made to start N processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

_RANKS = ("LOCAL_RANK", "RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def start_missing_processes() -> None:
    """Replace this process by N of torchrun, if accelerate was told N processes on the CPU and started one.

    On GPUs accelerate starts its processes itself. On the CPU it leaves that to MPI, and without MPI it starts a single
    process without a word (1.15). Call this first in a script that shall train on as many as it was told.

    Raises:
        ValueError: If several machines were asked for, which on the CPU need torchrun or MPI.
    """
    command = replacement_command(os.environ, _parent_command(), sys.argv)
    if command:
        os.execv(command[0], command)


def replacement_command(environ: Mapping[str, str], parent: Sequence[str], argv: Sequence[str]) -> list[str]:
    """Command to run instead of this process; nothing if it is one of several, or one was asked for.

    Args:
        environ: Environment of this process.
        parent: Command line of the process that started it.
        argv: This script and its arguments.

    Example:
        >>> parent = ["python", "accelerate", "launch", "--cpu", "--num_processes", "2", "train.py"]
        >>> replacement_command({"ACCELERATE_USE_CPU": "True"}, parent, ["train.py"])[1:]
        ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', 'train.py']
        >>> replacement_command({"ACCELERATE_USE_CPU": "True", "LOCAL_RANK": "0"}, parent, ["train.py"])
        []
    """
    if environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true") or any(name in environ for name in _RANKS):
        return []
    options = list(parent[: parent.index(argv[0])]) if argv[0] in parent else list(parent)
    if _number(options, "num_machines") > 1:
        raise ValueError("num_machines must be 1 for accelerate launch --cpu; start each machine with torchrun instead")
    count = _number(options, "num_processes")
    if count < 2:
        return []
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *argv]


def _number(options: Sequence[str], name: str) -> int:
    """Value of ``--name N`` or ``--name=N``, with underscores or hyphens; 1 if it is not given."""
    for place, option in enumerate(options):
        flag, _, value = option.partition("=")
        if flag.replace("-", "_") == f"__{name}":
            value = value or next(iter(options[place + 1 :]), "")
            return int(value) if value.isdecimal() else 1
    return 1


def _parent_command() -> list[str]:
    import psutil  # comes with accelerate

    parent = psutil.Process().parent()
    try:
        return parent.cmdline() if parent else []
    except psutil.Error:
        return []
