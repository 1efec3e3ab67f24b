"""Ways to load, adapt and train the model, see `registry`; imports nothing, as Unsloth has to come before PyTorch."""
