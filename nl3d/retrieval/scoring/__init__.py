"""Embedding files of any project and labels for them, as inputs of an evaluation."""
