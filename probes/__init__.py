"""Questions asked of a run: what fails, why, and which fix helps."""
