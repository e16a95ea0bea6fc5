"""Other projects' checkpoints: how each names its tensors, and what its networks do that no tensor tells."""
