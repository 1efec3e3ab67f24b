"""Recipes of other programs as run configurations. Never imports torch."""
