"""Model zoo for video person re-identification.

``__init__.pyi`` lists the public names, for type checkers too. They are imported on first use (PEP 562), so that a
single block costs no timm import.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from nl3d._version import __version__ as __version__

_PUBLIC = {
    name: module
    for module, name in re.findall(
        r"^from (nl3d\.\S+) import (\w+)", Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"), re.MULTILINE
    )
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nl3d' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
