"""Embedding files of anybody, and labels for them: what an evaluation takes."""
