"""Text to conditions: captions, tokens, embeddings."""
