"""One training run under observation: devices, data, the loop and its records."""
