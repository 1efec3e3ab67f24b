"""Ways to spend less memory, one file each, each switched on by a field of the configuration."""
