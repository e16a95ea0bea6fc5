"""Other projects' checkpoints, one file per project: names of tensors, and settings that shapes cannot reveal."""
