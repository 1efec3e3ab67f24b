"""How the command line says that it cannot go on."""

import sys


def refuse(reason: object, code: int) -> int:
    """Show the reason on standard error, line by line; return the exit code."""
    for line in str(reason).splitlines():
        print(f"run_probe.py: {line}", file=sys.stderr)
    return code
