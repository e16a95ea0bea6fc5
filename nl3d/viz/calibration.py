"""A picture of a calibration: distances of both kinds of pairs, and the ROC."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME, DIFFERENT = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito, distinct with any colour vision
BINS = 60


def draw_calibration(
    same: NDArray[np.float64],
    different: NDArray[np.float64],
    *,
    same_below: float,
    different_above: float,
    equal_error: float,
    title: str = "",
) -> Any:  # matplotlib.figure.Figure
    """Draw the distances of both kinds of pairs with the thresholds, and the ROC beside them.

    Args:
        same: ``(S,)``, distances of pairs of one person.
        different: ``(D,)``, distances of pairs of two.
        same_below: Distance up to which pairs are called the same.
        different_above: Distance from which they are called different.
        equal_error: Equal error rate.
        title: Line above both.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    try:
        figure = import_module("matplotlib.figure").Figure(figsize=(10, 4.2), layout="constrained")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("this picture needs matplotlib; install it with: pip install 'nl3d[viz]'") from None
    left, right = figure.subplots(1, 2)
    edges = np.linspace(0, max(same.max(), np.quantile(different, 0.999)), BINS + 1)
    for values, colour, style, label in (
        (same, SAME, "-", f"one person ({len(same)} pairs)"),
        (different, DIFFERENT, "--", f"two people ({len(different)} pairs)"),
    ):
        shares = np.histogram(values, edges)[0] / len(values)
        left.stairs(shares, edges, color=colour, linestyle=style, linewidth=1.8, label=label)
    left.axvspan(same_below, different_above, color="0.9", label="unsure")
    left.axvline(same_below, color=SAME, linewidth=1)
    left.axvline(different_above, color=DIFFERENT, linewidth=1, linestyle="--")
    left.set(xlabel="distance", ylabel="share of pairs", xlim=(0, edges[-1]), ylim=(0, None))
    left.legend(frameon=False)
    distances = np.sort(np.concatenate([same, different]))
    accepts = np.searchsorted(different, distances, "right") / len(different)
    found = np.searchsorted(same, distances, "right") / len(same)
    right.plot(np.maximum(accepts, 0.5 / len(different)), found, color="0.1", drawstyle="steps-post", linewidth=1.8)
    right.plot([equal_error], [1 - equal_error], "o", color="0.1", markerfacecolor="white")
    right.annotate(
        f"equal error {100 * equal_error:.1f} %", (equal_error, 1 - equal_error), (8, -14), textcoords="offset points"
    )
    right.set(
        xscale="log", xlabel="false accepts", ylabel="true accepts", xlim=(0.5 / len(different), 1), ylim=(0, 1.02)
    )
    right.grid(alpha=0.3)
    figure.suptitle(title)
    return figure
