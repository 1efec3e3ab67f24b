"""The command line: reads the flags, has done what they ask for, and ends with the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import HarnessError
from memory_harness.reports.refusal import refuse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        command = parse_args(arguments)
        # what it imports takes longer than to show help, or to refuse a value
        from memory_harness.reports.carry_out import carry_out

        return carry_out(command, arguments)
    except HarnessError as error:
        return refuse(error, 2)
    except KeyboardInterrupt:
        return refuse("stopped", 130)
