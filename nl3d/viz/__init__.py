"""Pictures of what the networks find."""
