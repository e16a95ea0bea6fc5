"""Inflation: image networks become video networks (Sec. 3.1)."""

from __future__ import annotations

from nl3d.inflate.convert import Inflate2dTo3d as Inflate2dTo3d
from nl3d.inflate.non_local import place_non_local as place_non_local
from nl3d.inflate.report import InflationReport as InflationReport
from nl3d.inflate.rules import frame_by_frame as frame_by_frame
from nl3d.inflate.rules import time_first as time_first
from nl3d.inflate.twins import TimeKernel as TimeKernel
