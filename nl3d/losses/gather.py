"""Batches of every rank in one: agreed checks, rows of any number, and gradients without a second collective."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


def is_distributed() -> bool:
    """Whether there are other ranks to gather from."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def check_on_all_ranks(check: Callable[[], None], device: torch.device) -> None:
    """Run ``check`` on every rank and raise on all of them if it raises on one, so that none waits for the others."""
    problem: Exception | None = None
    try:
        check()
    except Exception as error:
        problem = error
    refused = torch.tensor([problem is not None], dtype=torch.uint8, device=device)
    verdicts = [torch.empty_like(refused) for _ in range(dist.get_world_size())]
    dist.all_gather(verdicts, refused)
    if problem is not None:
        raise problem
    refusing = [rank for rank, verdict in enumerate(verdicts) if verdict.item()]
    if refusing:
        raise ValueError(f"the batch must be valid on every rank, but it was refused on rank {refusing}; see there")


def collective_device(tensor: object) -> torch.device:
    """Device that the process group can send from, also where the batch is not even a tensor."""
    if isinstance(tensor, Tensor):
        return tensor.device
    if "nccl" in str(dist.get_backend()):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def gather_batch(rows: Tensor, pids: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate ``rows`` and ``pids`` of all ranks, in the order of the ranks; their numbers may differ.

    The gradient of this rank's rows is multiplied by the number of ranks, and needs no collective: each rank computes
    the same loss of the same rows, so that the sum over ranks of the gradients is that multiple.
    """
    world, rank = dist.get_world_size(), dist.get_rank()
    counts = [len(rows)] * world
    if not torch.compiler.is_compiling():  # a compiled graph cannot depend on numbers that only the other ranks know
        counts = _exchange_counts(rows)
    longest = max(counts)
    pieces = list(_all_gather(rows.detach(), longest).split(longest))
    # The value of the rows, the gradient of world times the rows.
    pieces[rank] = F.pad(rows.detach() + world * (rows - rows.detach()), (0, 0, 0, longest - len(rows)))
    all_rows = torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])
    pid_pieces = _all_gather(pids.long(), longest).split(longest)
    return all_rows, torch.cat([piece[:count] for piece, count in zip(pid_pieces, counts, strict=True)])


def _exchange_counts(rows: Tensor) -> list[int]:
    """Rows on each rank, once it is sure that they can be concatenated."""
    mine = torch.tensor([*rows.shape, rows.element_size()], device=rows.device)
    headers = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(headers, mine)
    table = torch.stack(headers).tolist()
    if len({(width, itemsize) for _, width, itemsize in table}) > 1:
        kinds = [f"{width} x float{8 * itemsize}" for _, width, itemsize in table]
        raise ValueError(f"embeddings must have one width and dtype on all ranks, got {', '.join(kinds)}")
    return [count for count, _, _ in table]


def _all_gather(rows: Tensor, longest: int) -> Tensor:
    """Rows of all ranks, each padded with zeros to ``longest``."""
    padded = F.pad(rows, [0, 0] * (rows.ndim - 1) + [0, longest - len(rows)]).contiguous()
    gathered = padded.new_empty(dist.get_world_size() * longest, *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, padded)
    return gathered
