"""``python -m nl3d``, which ``torchrun -m nl3d`` and ``accelerate launch -m nl3d`` start as many times as wanted."""

from __future__ import annotations

import sys

from nl3d.cli import main

sys.exit(main())
