"""Somebody else's loop, recorded: what a loop tells of itself, what its calls and objects show."""
