"""From a distance to the probability that two tracklets show one person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from nl3d.embedding.embeddings import require_same_maker
from nl3d.files import check_output, replacing
from nl3d.metrics.distance import Metric

Decision: TypeAlias = Literal["same", "unsure", "different"]
CONTENT = "nl3d calibration"
BUNDLED = "resnet3d18_nl"
"""Name of the bundled weights' calibration in the folder ``calibrations``."""
UNKNOWN = "unknown"
"""Person of a query that no tracklet found is the same as."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A map from distances to probabilities, for the vectors of one network.

    The log odds of "same person" fall linearly in the squared distance (Platt 1999; exact for two Gaussians). The
    probability holds where pairs of one person are as frequent as pairs of two: it compares distances, and does not
    know how large a gallery is. :attr:`same_above` and :attr:`different_below` are rates measured on labelled pairs, so
    they mean the same for every network.

    Args:
        network: Hash of the network's parameters, as in :attr:`nl3d.Embeddings.metadata`.
        output: Layer that gives the vectors.
        metric: How distances are measured.
        slope: Log odds per squared distance, below 0. Under ``"cosine"`` the squared distance of unit vectors is used,
            twice the cosine distance.
        intercept: Log odds at distance 0.
        same_above: Probability from which two tracklets are called the same person.
        different_below: Probability up to which they are called different people.
        different_median: Median distance of pairs of two people, to which other footage is scaled; None if not known.
        about: What it was fitted on: counts, rates, a description.

    Raises:
        ValueError: If ``slope`` is not below 0 or the thresholds are not ``0 <= different_below <= same_above <= 1``.

    Example:
        >>> calibration = Calibration(
        ...     network="", output="", metric="euclidean", slope=-1, intercept=4, same_above=0.9, different_below=0.1
        ... )
        >>> calibration.decide(torch.tensor([1.0, 2.0, 3.0]))
        ['same', 'unsure', 'different']
    """

    network: str
    output: str
    metric: Metric
    slope: float
    intercept: float
    same_above: float
    different_below: float
    different_median: float | None = None
    about: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric must be one of 'euclidean', 'cosine', got {self.metric!r}")
        if not -float("inf") < self.slope < 0 or not abs(self.intercept) < float("inf"):
            raise ValueError(f"slope must be finite and below 0, got {self.slope} with intercept {self.intercept}")
        if not 0 <= self.different_below <= self.same_above <= 1:
            raise ValueError(
                "thresholds must be 0 <= different_below <= same_above <= 1, "
                f"got {self.different_below} and {self.same_above}"
            )

    def scaled_to(self, different_median: float) -> Calibration:
        """Return it for footage in which distances of two people have another median, all distances in proportion.

        Args:
            different_median: Median distance of pairs of two people there, above 0.
        """
        if not self.different_median:
            return self
        factor = self.different_median / different_median
        slope = self.slope * (factor if self.metric == "cosine" else factor**2)
        return replace(self, slope=slope, different_median=different_median)

    def log_odds(self, distances: Tensor) -> Tensor:
        """Return the log odds of "same person" of some distances, float64, in their shape."""
        squared = distances.double() * 2 if self.metric == "cosine" else distances.double().square()
        return self.intercept + self.slope * squared

    def probability(self, distances: Tensor) -> Tensor:
        """Return the probability that two tracklets show one person, float64, in the shape of the distances."""
        return self.log_odds(distances).sigmoid()

    def distance(self, probability: float) -> float:
        """Return the distance of a probability; 0 if it is above that of distance 0."""
        log_odds = torch.tensor(probability, dtype=torch.float64).logit()
        squared = max(float((log_odds - self.intercept) / self.slope), 0.0)
        return squared / 2 if self.metric == "cosine" else squared**0.5

    def decide(self, distances: Tensor) -> list[Decision]:
        """Return "same", "unsure" or "different" for each distance of a ``(N,)`` tensor."""
        return [
            "same" if value >= self.same_above else "different" if value <= self.different_below else "unsure"
            for value in self.probability(distances).tolist()
        ]

    def judge(self, distances: Tensor) -> list[tuple[float, Decision]]:
        """Return the probability and the decision of each distance of a ``(N,)`` tensor."""
        return list(zip(self.probability(distances).tolist(), self.decide(distances), strict=True))

    def require_fits(self, metadata: Mapping[str, str], metric: Metric | None = None) -> None:
        """Refuse vectors of another network or layer, and distances of another metric.

        Raises:
            ValueError: If both are known and differ.
        """
        try:
            require_same_maker({"network": self.network, "output": self.output}, metadata)
        except ValueError:
            raise ValueError(
                f"calibration must be of the network that made the vectors, got one of {self.output}/{self.network} "
                f"for {metadata.get('output')}/{metadata.get('network')}; nl3d calibrate makes one from labels"
            ) from None
        if metric not in (None, self.metric):
            raise ValueError(f"calibration must be for the metric {metric!r}, got one for {self.metric!r}")

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            FileExistsError: If the file exists and ``overwrite`` is off.
            ValueError: If the suffix is not ``.json``.
        """
        path = check_output(path, overwrite=overwrite, suffixes=(".json",))
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps({"content": CONTENT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file that :meth:`save` wrote. It needs no scikit-learn.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no calibration.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"calibration {str(path)!r} does not exist; nl3d calibrate writes one")
        return cls._parse(path.read_bytes(), str(path))

    @classmethod
    def _parse(cls, text: bytes, name: str) -> Calibration:
        try:
            stored = json.loads(text)
            if not isinstance(stored, dict) or stored.pop("content", None) != CONTENT:
                raise ValueError("it is not marked as one")
            numbers = ("slope", "intercept", "same_above", "different_below")
            return cls(**stored | {key: float(stored[key]) for key in numbers})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"calibration {name!r} must be JSON that nl3d calibrate wrote, but cannot be read: {error}"
            ) from None

    @classmethod
    def find(cls, metadata: Mapping[str, str]) -> Calibration | None:
        """Return the calibration that comes with the package for the network that made some vectors, if any."""
        made = metadata.get("network"), metadata.get("output")
        return next((known for known in _read_bundled().values() if (known.network, known.output) == made), None)

    @classmethod
    def bundled(cls) -> Calibration:
        """Return the calibration of the bundled weights, fitted on walkers and on no real person."""
        return _read_bundled()[BUNDLED]

    @classmethod
    def choose(
        cls, given: Calibration | str | Path | None, metadata: Mapping[str, str], metric: Metric | None
    ) -> Calibration | None:
        """Return the given one, or the file's, which must fit; without one, that of the package if it fits.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the given one is of another network, layer or metric.
        """
        if given is None:
            found = cls.find(metadata)
            return found if found is not None and metric in (None, found.metric) else None
        opened = cls.load(given) if isinstance(given, str | Path) else given
        opened.require_fits(metadata, metric)
        return opened

    def __repr__(self) -> str:
        same, different = self.distance(self.same_above), self.distance(self.different_below)
        maker = "/".join(part for part in (self.output, self.network) if part)
        return f"Calibration({self.metric}, same below {same:.4g}, different above {different:.4g}" + (
            f", {maker})" if maker else ")"
        )


@cache
def _read_bundled() -> dict[str, Calibration]:
    files = (resources.files("nl3d.retrieval") / "calibrations").iterdir()
    return {
        file.name.removesuffix(".json"): Calibration._parse(file.read_bytes(), file.name)
        for file in files
        if file.name.endswith(".json")
    }
