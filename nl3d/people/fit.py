"""Fit a calibration to labelled tracklets, and report what a threshold costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nl3d.embedding.embeddings import Embeddings, html_table
from nl3d.files import PICTURES, check_output, replacing
from nl3d.metrics.distance import Metric
from nl3d.people.pairs import LabelledPairs, labelled_pairs
from nl3d.people.tracklets import TrackletList, gather_tracklets
from nl3d.retrieval.calibration import Calibration
from nl3d.viz.calibration import draw_calibration

FALSE_ACCEPTS = (0.1, 0.01, 0.001, 0.0001)
SAME_AT, DIFFERENT_AT = 0.001, 0.05


class Rate(NamedTuple):
    """One point of the ROC.

    Attributes:
        false_accepts: Share of pairs of two people that pass.
        true_accepts: Share of pairs of one person that pass.
        distance: Threshold.
        probability: Probability at the threshold.
    """

    false_accepts: float
    true_accepts: float
    distance: float
    probability: float


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationReport:
    """A calibration and the pairs it was fitted to.

    Args:
        calibration: The map from distances to probabilities.
        pairs: Distances of the labelled pairs.
        rates: Points of the ROC at chosen shares of false accepts; those that the pairs are too few for are left out.
        equal_error: Equal error rate.
    """

    calibration: Calibration
    pairs: LabelledPairs
    rates: tuple[Rate, ...]
    equal_error: float

    def __repr__(self) -> str:
        return (
            f"CalibrationReport({len(self.pairs.same)} pairs of one person, {len(self.pairs.different)} of two, "
            f"EER {100 * self.equal_error:.1f} %)"
        )

    def _repr_html_(self) -> str:
        rows = [("false accepts", "true accepts", "distance", "probability")]
        rows += [(f"{a:.4%}", f"{b:.1%}", f"{d:.4g}", f"{p:.3f}") for a, b, d, p in self.rates]
        return html_table(repr(self), rows)

    def table(self) -> str:
        """Return the rates as a table to read."""
        lines = [
            f"{self.pairs.tracklets} tracklets of {self.pairs.people} people: {len(self.pairs.same)} pairs of one "
            f"person, {len(self.pairs.different)} of two",
            f"equal error rate {100 * self.equal_error:.2f} %",
            "false accepts  true accepts  distance  probability",
        ]
        for rate in self.rates:
            lines.append(
                f"{100 * rate.false_accepts:11.2f} %  {100 * rate.true_accepts:10.1f} %  {rate.distance:8.4f}  "
                f"{rate.probability:11.4f}"
            )
        same, different = self.calibration.same_above, self.calibration.different_below
        lines.append(f"same from probability {same:.4f}, different up to {different:.4f}, unsure between")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, ready for JSON."""
        return {
            "network": self.calibration.network,
            "output": self.calibration.output,
            "metric": self.calibration.metric,
            "same_above": self.calibration.same_above,
            "different_below": self.calibration.different_below,
            **(self.calibration.about or {}),
        }

    def save_picture(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Draw the distances and the ROC into a file, whole or not at all; the suffix is the format.

        Raises:
            FileExistsError: If the file exists and ``overwrite`` is off.
            ModuleNotFoundError: If matplotlib is not installed.
            ValueError: If the suffix is unknown.
        """
        path = check_output(path, overwrite=overwrite, suffixes=PICTURES)
        made = self.calibration
        figure = draw_calibration(
            self.pairs.same, self.pairs.different, same_below=made.distance(made.same_above),
            different_above=made.distance(made.different_below), equal_error=self.equal_error,
            title=str((made.about or {}).get("description", "")),
        )  # fmt: skip
        with replacing(path) as unfinished:
            figure.savefig(unfinished, dpi=120)


def calibrate(
    labelled: Sequence[Embeddings | str | Path] | Embeddings | str | Path | TrackletList,
    *,
    metric: Metric = "euclidean",
    same_camera: bool | None = None,
    false_accepts: Sequence[float] = FALSE_ACCEPTS,
    same_at: float = SAME_AT,
    different_at: float = DIFFERENT_AT,
    description: str = "",
) -> CalibrationReport:
    """Fit the probability that two tracklets show one person to labelled tracklets.

    Logistic regression (scikit-learn) of "same person" on the squared distance; pairs of one person and of two weigh
    the same in all. "Same" begins where only ``same_at`` of the pairs of two people are nearer, "different" where only
    ``different_at`` of the pairs of one person are farther. Where these meet, neither is unsure.

    Args:
        labelled: Embeddings with labels of people, or files of them.
        metric: How distances are measured.
        same_camera: Whether pairs under one camera count; only if there is one camera, if left out. Pairs that overlap
            in one video never count.
        false_accepts: Shares of false accepts to report. One that fewer than one pair stands for is left out.
        same_at: Share of pairs of two people that may be called the same.
        different_at: Share of pairs of one person that may be called different.
        description: A few words on the people, for the file.

    Raises:
        FileNotFoundError: If a file does not exist.
        ModuleNotFoundError: If scikit-learn is not installed.
        ValueError: If labels are missing, there are too few pairs, or distances of one person are no smaller than
            those of two.
    """
    for name, share in (("same_at", same_at), ("different_at", different_at)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be a share between 0 and 1, got {share}")
    tracklets = labelled if isinstance(labelled, TrackletList) else gather_tracklets(labelled)
    if not any(tracklets.people):
        raise ValueError("embeddings must have labels of people, got none; give a table of labels (--labels)")
    pairs = labelled_pairs(tracklets, metric=metric, same_camera=same_camera)
    slope, intercept = _fit_logistic(pairs, metric)
    made = Calibration(
        network=tracklets.metadata.get("network", ""), output=tracklets.metadata.get("output", ""), metric=metric,
        slope=slope, intercept=intercept, same_above=1.0, different_below=0.0,
    )  # fmt: skip

    def point(distance: float) -> Rate:
        probability = float(made.probability(torch.tensor(distance, dtype=torch.float64)))
        return Rate(pairs.false_accepts(distance), pairs.true_accepts(distance), distance, probability)

    equal_error, _ = pairs.equal_error()
    same = point(pairs.threshold(same_at)).probability
    different = point(float(np.quantile(pairs.same, 1 - different_at))).probability
    if different > same:  # the two kinds of pairs hardly overlap, so no pair need be unsure
        same = different = (same + different) / 2
    rates = tuple(point(pairs.threshold(share)) for share in false_accepts if share * len(pairs.different) >= 1)
    about = {
        "description": description,
        "people": pairs.people,
        "tracklets": pairs.tracklets,
        "same_pairs": len(pairs.same),
        "different_pairs": len(pairs.different),
        "equal_error_rate": equal_error,
        "rates": [rate._asdict() for rate in rates],
    }
    made = replace(
        made,
        same_above=same,
        different_below=different,
        different_median=float(np.median(pairs.different)),
        about=about,
    )
    return CalibrationReport(made, pairs, rates, equal_error)


def _fit_logistic(pairs: LabelledPairs, metric: Metric) -> tuple[float, float]:
    """Return slope and intercept of the log odds on the squared distance."""
    try:
        linear_model = import_module("sklearn.linear_model")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("calibrate needs scikit-learn; install it with: pip install 'nl3d[people]'") from None
    distances = np.concatenate([pairs.same, pairs.different])
    squared = 2 * distances if metric == "cosine" else distances**2
    is_same = np.arange(len(squared)) < len(pairs.same)
    scale = float(np.median(squared)) or 1.0
    fitted = linear_model.LogisticRegression(C=1e6, class_weight="balanced").fit(squared[:, None] / scale, is_same)
    slope, intercept = float(fitted.coef_[0, 0]) / scale, float(fitted.intercept_[0])
    if slope >= 0:
        raise ValueError(
            "distances of one person must be smaller than those of two, but are not: the medians are "
            f"{np.median(pairs.same):.4g} and {np.median(pairs.different):.4g}; check labels and network"
        )
    return slope, intercept
