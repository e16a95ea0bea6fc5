"""To and from disk and the Hugging Face Hub."""
