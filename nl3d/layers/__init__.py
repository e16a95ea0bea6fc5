"""The blocks, each usable alone in any network."""
