"""Memory budgets in pytest: markers, limits, baselines. Never imports torch."""
