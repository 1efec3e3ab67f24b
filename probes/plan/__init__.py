"""Which fixes to take: predicted before anything runs, proved by a run afterwards."""
