"""The training loop, and all that it needs to begin, survive, end and go on."""
