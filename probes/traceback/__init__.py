"""What a pasted traceback of an out-of-memory tells: where it was, who held memory, why. Never imports torch."""
