"""Tracklets: what they are, how they are read, and how they are cut into clips."""
