"""Text to batches: sources, splits, tokenizer, padding. Knows nothing of any model."""
