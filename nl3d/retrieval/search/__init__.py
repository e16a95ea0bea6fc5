"""Nearest tracklets: exactly, in memory or on the disk, and through an index."""
