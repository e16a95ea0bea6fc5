"""Tracklets: what they are, how they are read, and how they are cut into clips.

``__init__.pyi`` lists the public names of the room.
"""

from nl3d._lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(__name__, __file__)
