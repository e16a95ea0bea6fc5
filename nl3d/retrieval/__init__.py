"""From videos and folders to embeddings, and from embeddings to rankings."""
