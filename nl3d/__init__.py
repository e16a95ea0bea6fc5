"""Model zoo for video person re-identification.

``__init__.pyi`` lists the public names, for type checkers too. They are imported on first use (PEP 562), so that a
single block costs no timm import.
"""

from nl3d._lazy import lazy_names
from nl3d._version import __version__ as __version__

__all__, __getattr__, __dir__ = lazy_names(__name__, __file__)
