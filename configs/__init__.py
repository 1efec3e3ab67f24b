"""What to run: the run configuration, its presets, the target cards and the model shapes. Never imports torch."""
