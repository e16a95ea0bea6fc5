"""Command ``nl3d-weights``: identify, convert, verify and publish checkpoints."""
