"""Answers shown: summary, terminal, JSON. Never imports torch."""
