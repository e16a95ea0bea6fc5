"""The blocks, each usable alone in anybody's network."""
