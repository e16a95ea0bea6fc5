"""Frames: image files, videos, and pixels."""
