"""Other projects' checkpoints: read, recognise and rename them."""
