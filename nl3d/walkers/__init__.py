"""Synthetic walkers: deterministic person tracklets for tests, demonstrations and training without a data set."""

from nl3d.walkers.dataset import WalkerKey as WalkerKey
from nl3d.walkers.dataset import WalkerTracklets as WalkerTracklets
from nl3d.walkers.world import WalkerWorld as WalkerWorld

__all__ = ["WalkerKey", "WalkerTracklets", "WalkerWorld"]
