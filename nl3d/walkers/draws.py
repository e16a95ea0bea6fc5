"""Random numbers by name: one key gives the same draws on every machine, in any order of calls."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")


class Draws:
    """Stream of draws that belongs to one key, such as ``(seed, "camera", 3)``.

    Streams are independent, so a camera does not change when identities are added, and no global generator is used.
    Only the raw bits of Philox are used, which NumPy keeps stable across versions. Distributions are computed here,
    since NumPy may change its own.
    """

    def __init__(self, *key: int | str) -> None:
        digest = blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
        self._bits = np.random.Philox(key=int.from_bytes(digest, "little"))

    def uniforms(self, count: int) -> np.ndarray:
        """Values in [0, 1), float64 ``(count,)``."""
        raw: np.ndarray = self._bits.random_raw(count)
        return (raw >> np.uint64(11)) * 2.0**-53

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """One value in ``[low, high)``."""
        return low + (high - low) * float(self.uniforms(1)[0])

    def normals(self, count: int) -> np.ndarray:
        """Values of mean 0 and deviation 1, as sums of twelve uniforms: bounded by 6, without libm."""
        return self.uniforms(12 * count).reshape(count, 12).sum(1) - 6.0

    def normal(self) -> float:
        """One value of mean 0 and deviation 1."""
        return float(self.normals(1)[0])

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.uniform() < probability

    def pick(self, choices: Sequence[Choice], weights: Sequence[float] | None = None) -> Choice:
        """Return one of the choices, by weight."""
        shares = np.cumsum(weights if weights is not None else [1.0] * len(choices))
        return choices[int(np.searchsorted(shares / shares[-1], self.uniform(), side="right"))]

    def permutation(self, count: int) -> np.ndarray:
        """The numbers below ``count`` in random order."""
        return np.argsort(self.uniforms(count), kind="stable")

    def noise(self, count: int) -> np.ndarray:
        """Fast noise for pixels: mean 0, deviation 1, triangular, float32 ``(count,)``."""
        raw: np.ndarray = self._bits.random_raw((count + 3) // 4)
        pairs = raw.astype("<u8", copy=False).view(np.uint8).reshape(-1, 2).astype(np.float32)
        return (pairs[:count, 0] - pairs[:count, 1]) * np.float32(1 / 104.51)  # 104.51: deviation of the difference
