"""Which gallery entries have a query's identity, and which of them its ranking leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from nl3d.metrics.inputs import Array, as_labels

Labels: TypeAlias = Array | Sequence[int]
Clothes: TypeAlias = Literal["any", "same", "changed"]
"""Which matches count by their clothes: all, those in the query's clothes, or those in other clothes."""


class Matches:
    """Identities and cameras of both sides, checked, with the gallery sorted by identity.

    Junk is gone from ``g_pids`` and ``g_camids``; ``kept`` says where it was not. The lists are short beside the
    distances, so they stay on the CPU, in NumPy, whose small operations wait for no other thread or device.
    """

    def __init__(
        self,
        pids: tuple[Labels, Labels],
        camids: tuple[Labels | None, Labels | None],
        *,
        sizes: tuple[int, int],
        junk_pids: Sequence[int],
        distractor_pids: Sequence[int],
        exclude_same_camera: bool,
        clothes: Clothes = "any",
        clothes_labels: tuple[Labels | None, Labels | None] = (None, None),
    ) -> None:
        num_query, num_gallery = sizes
        self.exclude_same_camera, self.clothes = exclude_same_camera, clothes
        self.q_pids = as_labels(pids[0], num_query, name="q_pids")
        all_pids = as_labels(pids[1], num_gallery, name="g_pids")
        self.kept = ~np.isin(all_pids, list(junk_pids))
        self.g_pids = all_pids[self.kept]
        self.num_junk = num_gallery - len(self.g_pids)
        if not len(self.g_pids):
            raise ValueError(f"g_pids must hold more than junk, got {num_gallery} rows of junk_pids {tuple(junk_pids)}")
        if exclude_same_camera:
            if camids[0] is None or camids[1] is None:
                raise ValueError("q_camids and g_camids must be given, got None; or pass exclude_same_camera=False")
            self.q_camids = as_labels(camids[0], num_query, name="q_camids")
            self.g_camids = as_labels(camids[1], num_gallery, name="g_camids")[self.kept]
        if clothes != "any":
            if clothes_labels[0] is None or clothes_labels[1] is None:
                raise ValueError(f"q_clothes and g_clothes must be given for clothes={clothes!r}, got None")
            self.q_clothes = as_labels(clothes_labels[0], num_query, name="q_clothes")
            self.g_clothes = as_labels(clothes_labels[1], num_gallery, name="g_clothes")[self.kept]
        self.by_pid = np.argsort(self.g_pids, kind="stable")
        sorted_pids = self.g_pids[self.by_pid]
        self.firsts = np.searchsorted(sorted_pids, self.q_pids, side="left")
        self.counts = np.searchsorted(sorted_pids, self.q_pids, side="right") - self.firsts
        self.counts[np.isin(self.q_pids, list(distractor_pids))] = 0

    def pairs(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, column and whether it is left out, of every gallery entry with the pid of its query.

        Rows count from ``start`` and ascend; within a row, columns ascend.
        """
        counts = self.counts[start:stop]
        rows = np.repeat(np.arange(stop - start), counts)
        columns = self.by_pid[np.repeat(self.firsts[start:stop], counts) + positions_in_runs(counts)]
        excluded = np.zeros(len(rows), dtype=bool)
        if self.exclude_same_camera:
            excluded |= self.q_camids[start:stop][rows] == self.g_camids[columns]
        if self.clothes != "any":
            same = self.q_clothes[start:stop][rows] == self.g_clothes[columns]
            excluded |= same if self.clothes == "changed" else ~same
        return rows, columns, excluded


def positions_in_runs(lengths: np.ndarray) -> np.ndarray:
    """``0 ... lengths[i] - 1`` for each i, end to end."""
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
