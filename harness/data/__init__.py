"""The corpus: read, cleaned, tokenised, put into batches. Never imports torch."""
