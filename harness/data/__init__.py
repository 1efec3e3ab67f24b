"""The corpus and how it becomes batches; never imports torch."""
