"""Live streams: embeddings and matches of tracks that are still open."""
