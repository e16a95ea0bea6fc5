"""Checkpoints: where they lie, how they are fetched, and how they become networks."""
