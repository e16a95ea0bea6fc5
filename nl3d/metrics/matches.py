"""Which gallery entries have a query's identity, and which of them its ranking leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from nl3d.metrics.inputs import Array, as_labels
from nl3d.metrics.ragged import expand_ranges

Labels: TypeAlias = Array | Sequence[int]


class Matches:
    """Identities and cameras of both sides, checked, with the gallery sorted by identity.

    Junk is gone from ``g_pids`` and ``g_camids``; ``kept`` says where it was not.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If there are not as many as rows, if cameras are needed and missing, or if all the gallery is junk.
    """

    def __init__(
        self,
        pids: tuple[Labels, Labels],
        camids: tuple[Labels | None, Labels | None],
        *,
        sizes: tuple[int, int],
        device: torch.device,
        junk_pids: Sequence[int],
        distractor_pids: Sequence[int],
        exclude_same_camera: bool,
    ) -> None:
        num_query, num_gallery = sizes
        self.exclude_same_camera = exclude_same_camera
        self.q_pids = as_labels(pids[0], num_query, device, name="q_pids")
        all_pids = as_labels(pids[1], num_gallery, device, name="g_pids")
        self.kept = ~torch.isin(all_pids, _as_set(junk_pids, device))
        self.g_pids = all_pids[self.kept]
        self.num_junk = num_gallery - len(self.g_pids)
        if not len(self.g_pids):
            raise ValueError(f"g_pids must hold more than junk, got {num_gallery} rows of junk_pids {tuple(junk_pids)}")
        if exclude_same_camera:
            if camids[0] is None or camids[1] is None:
                raise ValueError("q_camids and g_camids must be given, got None; or pass exclude_same_camera=False")
            self.q_camids = as_labels(camids[0], num_query, device, name="q_camids")
            self.g_camids = as_labels(camids[1], num_gallery, device, name="g_camids")[self.kept]
        self.never_matches = torch.isin(self.q_pids, _as_set(distractor_pids, device))
        self.sorted_pids, self.by_pid = self.g_pids.sort(stable=True)

    def pairs(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and whether it is left out, of every gallery entry with the pid of its query.

        Rows count from ``start`` and ascend; within a row, columns ascend.
        """
        pids = self.q_pids[start:stop]
        first = torch.searchsorted(self.sorted_pids, pids)
        counts = torch.searchsorted(self.sorted_pids, pids, right=True) - first
        rows, places = expand_ranges(first, counts.masked_fill(self.never_matches[start:stop], 0))
        columns = self.by_pid[places]
        if not self.exclude_same_camera:
            return rows, columns, torch.zeros_like(rows, dtype=torch.bool)
        return rows, columns, self.q_camids[start:stop][rows] == self.g_camids[columns]


def _as_set(pids: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(list(pids), dtype=torch.int64, device=device)
