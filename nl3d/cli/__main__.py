"""``python -m nl3d.cli``, for where the script is not on the path."""

from __future__ import annotations

import sys

from nl3d.cli import main

sys.exit(main())
