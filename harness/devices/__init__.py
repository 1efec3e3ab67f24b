"""Where a run happens: a CUDA GPU (measured) or a model of one (simulated)."""
