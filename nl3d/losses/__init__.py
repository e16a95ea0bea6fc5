"""Losses of Sec. 3.3; a leaf of the package, usable with any network."""

from nl3d.losses.reid import ReIDLoss as ReIDLoss
from nl3d.losses.reid import ReIDLossParts as ReIDLossParts
from nl3d.losses.triplet import BatchHardTriplet as BatchHardTriplet
