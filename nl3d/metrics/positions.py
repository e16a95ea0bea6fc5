"""Where the matches of a query stand in its ranking, without ranking everything else where that can be helped."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Counting looks at a whole row once for every match. Measured at a gallery of 11,310: 3.4 microseconds per match, and
# 370 to sort the row.
COUNT_UP_TO = 64


def match_positions(distances: Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Position, from 1, of gallery entries in their query's ranking; at equal distance the gallery's order decides.

    NaN stands for entries that take no part.

    Shape:
        - distances: ``(C, num_gallery)``
        - rows, columns: ``(M,)``, the entries asked for
        - Output: ``(M,)``
    """
    if distances.device.type != "cpu":
        return _by_sorting(distances, rows, columns)
    many = np.bincount(rows, minlength=len(distances)) > COUNT_UP_TO  # (C,)
    in_many = many[rows]
    positions = np.empty(len(rows), dtype=np.int64)
    positions[~in_many] = _by_counting(distances, rows[~in_many], columns[~in_many])
    if in_many.any():
        compact = np.cumsum(many) - 1  # row -> row among those to sort
        positions[in_many] = _by_sorting(distances[many], compact[rows[in_many]], columns[in_many])
    return positions


def _by_counting(distances: Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """One more than the entries before: nearer ones, and equally near ones that the gallery lists earlier."""
    lines = distances.numpy()  # comparing and counting short rows costs NumPy a third of what it costs torch
    positions = np.empty(len(rows), dtype=np.int64)
    for index, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        line = lines[row]
        value = line[column]
        before = np.count_nonzero(line[:column] <= value) + np.count_nonzero(line[column:] < value)
        positions[index] = before + 1
    return positions


def _by_sorting(distances: Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    order = distances.argsort(dim=1, stable=True)  # NaN comes last
    inverse = torch.empty_like(order)
    inverse.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return inverse[torch.from_numpy(rows), torch.from_numpy(columns)].cpu().numpy() + 1
