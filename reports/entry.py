"""Where the program begins: a request is read at once, and what does it is imported only when the request is usable."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from memory_harness.configs.cli import Command, parse_args
from memory_harness.configs.errors import ConfigError, HarnessError, one_line, reason_of
from memory_harness.configs.launch import leads
from memory_harness.configs.places import has_gpu_driver
from memory_harness.configs.program import say
from memory_harness.probes.fault_names import check_fault_name
from memory_harness.reports.defects import explain
from memory_harness.reports.output import forgiving_output


@forgiving_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and say in a line why it ends where it cannot go on; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        command = _parsed_by_all(arguments)
        if command is None:
            return 2
        _check_machine(command)
        from memory_harness.reports.command import carry_out  # its imports take a second

        return carry_out(command, arguments)
    except HarnessError as error:
        say(error)
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        line, code = explain(error, arguments)
        say(one_line(line))
        return code


def _parsed_by_all(arguments: Sequence[str]) -> Command | None:
    """Return what the command line asks for; None where it cannot be used and another process says so for all."""
    try:
        return parsed(arguments)
    except HarnessError:
        if leads():
            raise
        return None


def parsed(arguments: Sequence[str]) -> Command:
    """Return what the command line asks for. Raises as `parse_args`, ConfigError for what that stumbles over too."""
    try:
        command = parse_args(arguments)
        _check_names(command)
    except (ArithmeticError, ValueError) as error:  # nothing but what was given has been looked at yet
        raise ConfigError(f"a value that was given cannot be used: {reason_of(error)}") from error
    return command


def _check_machine(command: Command) -> None:
    """Raise ConfigError where what the command needs is not on this machine."""
    if command.config.device.device == "cuda" and not has_gpu_driver():
        raise ConfigError("--device cuda: there is no GPU here; leave it out, and the card is simulated")
    if command.explain is None and command.human_sheet is None and command.score_sheet is None:
        from memory_harness.configs.pins import check_torch  # packaging takes a while to import

        check_torch()


def _check_names(command: Command) -> None:
    """Raise ConfigError where something that the command line names is not there: what looks into it comes later."""
    if command.fault is not None:
        check_fault_name(command.fault)
    for flag, script in (("--watch", command.watch), ("--dry-run", command.dry_run)):
        if script is not None and not Path(script).exists():
            raise ConfigError(f"{flag} {script}: no such file; give a Python script")
    logs = [("--replay", command.replay), *(("--compare", path) for path in command.compare or ())]
    for flag, path in logs:
        if path is not None:
            _check_there(flag, path)


def _check_there(flag: str, path: Path) -> None:
    try:
        path.stat()
    except OSError as error:
        raise ConfigError(f"{flag} {path}: cannot be read ({error.strerror})") from None
